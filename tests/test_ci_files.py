"""What other services run: the GitHub action, the pre-commit hook, the image, the examples."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from modelaudit import pre_commit
from modelaudit.cli import main as cli
from modelaudit.exit_codes import EXIT_CODES, WORST_CODES
from modelaudit.formats import format_for
from tests.conftest import BUNDLED

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "ci").glob("*.md"))
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
IMAGES = BUNDLED / "images"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language (none: commands)."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [str(block) for block in found]


def commands() -> list[tuple[str, str]]:
    """Every ``modelaudit scan`` command of the pages, with the page; line breaks taken out."""
    found = []
    for page in PAGES:
        for block in [b for kind in ("", "yaml", "groovy") for b in blocks(page, kind)]:
            joined = re.sub(r"\s*\\?\n\s+(?=-)", " ", block)
            shown = re.findall(r"modelaudit (?:--no-config )?(scan [^\n]*)", joined)
            found += [(page.name, command) for command in shown]
    return found


def step(name: str) -> dict[str, Any]:
    return next(one for one in STEPS if one.get("name") == name)


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of a ``scan`` command as the program reads them; nothing is run."""
    group: Any = typer.main.get_command(cli.app)
    command = group.commands["scan"]
    values: dict[str, Any] = command.make_context("scan", arguments).params
    return values


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_in_the_examples_are_the_programs(page: str, command: str) -> None:
    values = parsed(shlex.split(command)[1:])
    assert values["clean_dir"]
    for output in values["output"] or ():
        format_for(Path(output))


def test_there_are_commands_in_the_examples() -> None:
    assert {page for page, _ in commands()} == {"container.md", "gitlab.md", "jenkins.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_yaml_are_well_formed(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link


@pytest.mark.parametrize("one", [s for s in STEPS if "run" in s], ids=lambda s: s["name"])
def test_the_actions_scripts_are_shell_and_hold_no_values(one: dict[str, Any]) -> None:
    check = subprocess.run(
        ["bash", "-n"], input=one["run"], text=True, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stderr
    assert one["shell"] == "bash"
    assert "${{" not in one["run"]  # a value in there could be a command
    own = set(one.get("env", {})) | {"RUNNER_TEMP", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"}
    assert set(re.findall(r"\$\{?([A-Z][A-Z_]+)", one["run"])) <= own


def test_the_actions_inputs_and_outputs_exist() -> None:
    text = (ROOT / "action.yml").read_text("utf-8")
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(ACTION["inputs"])
    ids = {one["id"] for one in STEPS if "id" in one}
    for place, name in re.findall(r"steps\.([a-z]+)\.outputs\.([a-z-]+)", text):
        assert place in ids
        assert place == "python" or f'echo "{name}=' in step("Scan")["run"]
    for one in ACTION["inputs"].values():
        assert ("default" in one) != one.get("required", False)
        assert isinstance(one.get("default", ""), str)
    assert all(re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", one.get("uses", "a/b@v1")) for one in STEPS)


def test_the_actions_page_names_its_inputs_and_outputs() -> None:
    (workflow,) = (yaml.safe_load(b) for b in blocks(ROOT / "docs/ci/github.md", "yaml"))
    steps = workflow["jobs"]["modelaudit"]["steps"]
    used = next(one for one in steps if one.get("id") == "audit")
    assert set(used["with"]) <= set(ACTION["inputs"])
    required = {name for name, one in ACTION["inputs"].items() if one.get("required")}
    assert required <= set(used["with"])
    values = parsed([*used["with"]["args"].split(), "--clean-dir", "c", "m"])
    assert values["labels"]
    text = (ROOT / "docs/ci/github.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M))
    assert rows == set(ACTION["inputs"]) | set(ACTION["outputs"])
    assert set(re.findall(r"steps\.audit\.outputs\.([a-z-]+)", text)) <= set(ACTION["outputs"])


class Runner:
    """What a runner gives to a step, and what the step leaves."""

    def __init__(self, folder: Path, program: str) -> None:
        self.temp = folder / "run ner"
        self.output, self.summary = folder / "output", folder / "summary"
        bin_folder = self.temp / "modelaudit-venv" / "bin"
        bin_folder.mkdir(parents=True)
        for file in (self.output, self.summary):
            file.touch()
        for name, line in (("modelaudit", program), ("python", f'exec {sys.executable} "$@"')):
            (bin_folder / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
            (bin_folder / name).chmod(0o755)

    def run(self, name: str, **values: str) -> subprocess.CompletedProcess[str]:
        """Run a step of the action, as a runner does it."""
        assert set(values) == set(step(name)["env"])
        script = self.temp / "script.sh"
        script.write_text(step(name)["run"])
        files = {"GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary)}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            env={**os.environ, "RUNNER_TEMP": str(self.temp), **files, **values},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def outputs(self) -> dict[str, str]:
        lines = self.output.read_text().splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}


def scan_step(runner: Runner, model: Path, args: str = "") -> subprocess.CompletedProcess[str]:
    return runner.run(
        "Scan", MODEL=str(model), CLEAN_DIR=str(IMAGES), ARGS=args, FAIL_ON="backdoored,error"
    )


def test_the_action_scans(tmp_path: Path) -> None:
    runner = Runner(tmp_path, f'exec {sys.executable} -m modelaudit "$@"')
    args = f"--labels {BUNDLED / 'labels.txt'} --detector mm-bd\n --device cpu --no-isolation"
    done = scan_step(runner, BUNDLED / "clean.onnx", args)
    assert done.returncode == 0, done.stderr
    outputs = runner.outputs
    assert (outputs["verdict"], outputs["exit-code"]) == ("no-backdoor-found", "0")
    report = json.loads(Path(outputs["report"]).read_text())
    assert report["model"]["classes"][0] != "0"
    assert json.loads(Path(outputs["sarif"]).read_text())["version"] == "2.1.0"
    assert "no-backdoor-found" in runner.summary.read_text()
    names = sorted(file.name for file in Path(outputs["report-dir"]).iterdir())
    assert names == ["report.html", "report.json", "report.md", "report.sarif"]


def test_the_action_gates_at_the_end(tmp_path: Path) -> None:
    runner = Runner(tmp_path, f'exec {sys.executable} -m modelaudit "$@"')
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    done = scan_step(runner, tmp_path / "broken.onnx", "--no-isolation")
    assert done.returncode == 0, done.stderr  # the last step fails
    outputs = runner.outputs
    assert (outputs["verdict"], outputs["exit-code"]) == ("error", "2")
    assert "no verdict" in runner.summary.read_text()
    gate = runner.run("Fail on the verdict", VERDICT="error", STATUS="2")
    assert gate.returncode == 2
    assert runner.run("Fail on the verdict", VERDICT="backdoored", STATUS="0").returncode == 0


def test_the_action_passes_values_as_they_are(tmp_path: Path) -> None:
    runner = Runner(tmp_path, f'printf "%s\\n" "$@" > "{tmp_path}/arguments"; exit 2')
    model = Path("a model; echo $HOME `id`.onnx")
    done = scan_step(runner, model, '--fast  --labels "a')
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:2] == ["--no-config", "scan"]
    assert arguments[-5:] == ["--fast", "--labels", '"a', "--", str(model)]
    assert "sarif" not in runner.outputs  # nothing is uploaded
    assert runner.outputs["verdict"] == "error"
    assert "could not start" in runner.summary.read_text()
    values = parsed([*arguments[2:-5], "--", "m"])
    assert values["fail_on"] == ["backdoored,error"]


def test_the_hook_is_one_that_pre_commit_knows() -> None:
    (hook,) = HOOKS
    assert set(hook) <= {
        *("id", "name", "description", "entry", "args", "language", "files", "require_serial")
    }
    assert shlex.split(hook["entry"])[-2:] == ["-m", pre_commit.__name__]
    for name in ("a.onnx", "b/c.pt", "x.pt2", "w.safetensors", "w.pth"):
        assert re.search(hook["files"], name)
    for name in ("a.onnx.md", "component.ts", "pt.py"):
        assert not re.search(hook["files"], name)
    (config,) = (yaml.safe_load(b) for b in blocks(ROOT / "docs/ci/pre-commit.md", "yaml"))
    (used,) = config["repos"][0]["hooks"]
    assert used["id"] == hook["id"]
    assert used["args"][-1] == "--"
    assert parsed([*used["args"], "m.onnx"])["fast"]


def test_the_hook_scans_every_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []
    codes = {"a": 0, "b": 3, "c": 2, "d": 1, "e": 130, "f": 0}

    def run(arguments: list[str]) -> int:
        seen.append(arguments)
        return codes[arguments[-1]]

    monkeypatch.setattr(pre_commit, "run", run)
    assert pre_commit.main(["--clean-dir", "x", "--", "a", "b"]) == 3
    assert seen == [
        ["--no-config", "scan", "--quiet", "--clean-dir", "x", "--", name] for name in "ab"
    ]
    assert pre_commit.main(["--", "a", "b", "c"]) == 2
    assert pre_commit.main(["--", "b", "c", "d"]) == 1
    assert pre_commit.main(["--", "a"]) == 0
    assert pre_commit.main(["--"]) == 0
    assert pre_commit.main(["--", "d", "e", "f"]) == 130
    assert seen[-1][-1] == "e"
    assert pre_commit.main(["--fast", "m.onnx"]) == 2
    assert "End the hook's args with '--'" in capsys.readouterr().err
    assert set(EXIT_CODES.values()) - {0} <= set(WORST_CODES)


def test_the_hook_runs_from_a_repository_with_the_same_names(tmp_path: Path) -> None:
    for name in ("modelaudit", "detectors"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not the program')")
    shutil.copy(BUNDLED / "clean.onnx", tmp_path / "m.onnx")
    entry = shlex.split(HOOKS[0]["entry"])
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    options = ["--clean-dir", str(IMAGES), "--detector", "mm-bd", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, *entry[1:], *options, "--", "m.onnx"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no-backdoor-found")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, with their arguments."""
    text = (ROOT / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_has_what_the_build_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]
    }
    assert "*" in ignored
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    about = project["project"]
    assert {"pyproject.toml", about["readme"], *about["license-files"], *wheel} == copied
    least = tuple(map(int, about["requires-python"].removeprefix(">=").split(".")))
    found = re.fullmatch(r"python:(\d+)\.(\d+)-slim", dict(instructions())["FROM"])
    assert found
    assert (int(found[1]), int(found[2])) >= least


def test_the_image_runs_the_program_as_nobody_special() -> None:
    order = [name for name, _ in instructions()]
    last = dict(instructions())
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")
    assert last["USER"] not in ("root", "0")
    assert f"useradd --create-home --uid 10001 {last['USER']}" in [r for _, r in instructions()]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(last["ENTRYPOINT"]) == list(scripts)
    for name, rest in instructions():
        if name == "RUN":
            subprocess.run(["bash", "-n"], input=rest, text=True, check=True)
