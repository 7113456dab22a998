"""Detectors of other packages: declared, loaded when asked for, and what can be wrong with them."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from detectors import plugins, registry
from detectors.entry import Entry
from modelaudit import listing
from modelaudit.errors import DetectorError, UsageError
from modelaudit.isolation.limits import Limits
from modelaudit.options import ScanOptions
from modelaudit.run import run_scan
from tests.command import modelaudit
from tests.conftest import BUNDLED
from tests.detectors.models import linear_input, orthonormal_rows

EXAMPLE = Path(__file__).parent.parent / "data" / "example_detector"
SCAN = ("scan", BUNDLED / "clean.onnx", "--clean-dir", BUNDLED / "images")


def install(site: Path, name: str, points: dict[str, str], *modules: Path) -> Path:
    """Put a distribution into ``site``, as an installer would; no network, no pip."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in points.items()]
    text = "\n".join([f"[{plugins.GROUP}]", *lines, ""])
    (info / "entry_points.txt").write_text(text)
    for module in modules:
        shutil.copy(module, site)
    return site


def install_example(site: Path) -> Path:
    """The example package, with the entry points that its ``pyproject.toml`` declares."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"][plugins.GROUP]
    return install(site, project["name"], points, EXAMPLE / "example_detector.py")


def install_module(site: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> str:
    """A package with one module of this code, whose detector ``name`` is its ``ENTRY``."""
    module = f"other_{name}"
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{module}.py").write_text(code)
    install(site, module, {name: f"{module}:ENTRY"})
    monkeypatch.syspath_prepend(site)
    return module


def test_the_example_is_loaded_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_example(tmp_path))
    monkeypatch.delitem(sys.modules, "example_detector", raising=False)  # of another test
    assert "example-bias" in plugins.declarations()
    assert "example-bias" not in registry.preset_names("thorough")
    assert "example_detector" not in sys.modules
    detector = registry.build("example-bias", {"images": "8"})
    assert isinstance(detector, plugins.Foreign)
    result = detector(linear_input(orthonormal_rows(5), 1.0))
    assert result.settings == {"images": 8}
    assert result.image_passes == 4
    assert len(result.classes) == 5
    with pytest.raises(ValueError, match="has no setting 'nope'; it has: images"):
        registry.build("example-bias", {"nope": "1"})
    with pytest.raises(ValueError, match="must be at least 1"):
        registry.build("example-bias", {"images": "0"})


def test_the_command_runs_it_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install_example(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, sys.path)]))
    listed = modelaudit("detectors")
    assert "example-bias  (on request; of example-detector 1.0 (example_detector:ENTRY))" in (
        listed.stdout
    )
    assert "--set example-bias.images=64" in listed.stdout
    asked = ("--detector", "example-bias", "--set", "example-bias.images=16", "--format", "json")
    scanned = modelaudit(*SCAN, *asked)
    assert scanned.returncode == 0, scanned.stderr
    assert '"detector": "example-bias"' in scanned.stdout
    assert '"isolation"' in scanned.stdout
    assert "example: the class that meaningless images become" in scanned.stdout


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module_anywhere", "cannot be loaded: ModuleNotFoundError"),
        ("raise SystemError('broken')", "cannot be loaded: SystemError: broken"),
        ("X = 1", "cannot be loaded: AttributeError"),
        ("ENTRY = 3", "expected a detectors.registry.Entry, found int"),
        ("from detectors.registry import Entry\nENTRY = Entry(print, {}, '')", "a dataclass"),
        (
            "from dataclasses import dataclass\nfrom detectors.registry import Entry\n"
            "@dataclass\nclass A:\n    size: int = 1\nENTRY = Entry(A, {}, '')",
            "must have a field 'name'",
        ),
        (
            "from dataclasses import dataclass\nfrom detectors.registry import Entry\n"
            "@dataclass\nclass A:\n    name: str\n    size: int\nENTRY = Entry(A, {}, '')",
            "'size' of A must have a default",
        ),
        (
            "from dataclasses import dataclass\nfrom detectors.registry import Entry\n"
            "@dataclass\nclass A:\n    name: str\n    size: tuple = ()\nENTRY = Entry(A, {}, '')",
            "must be a bool, int, float, str or Literal",
        ),
    ],
)
def test_one_that_cannot_be_used_is_an_error_only_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    name = tmp_path.name  # another one for every test: modules stay in memory
    module = install_module(tmp_path, monkeypatch, name, code)
    with pytest.raises(ValueError, match=words) as caught:
        registry.build(name, {})
    assert f"{module} 1.0" in str(caught.value)
    assert f"warning: the detector '{name}'" in listing.detectors_text()
    assert registry.build("l-red", {})
    with pytest.raises(ValueError, match=f"there are: l-red, .*{name}"):
        registry.build("nope", {})


def test_a_built_in_name_is_refused_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path, "rival", {"mm-bd": "rival:ENTRY"}))
    registry.refuse_ambiguous(["l-red"])
    with pytest.raises(ValueError, match=r"'mm-bd' is built in, but rival 1\.0 \(rival:ENTRY\)"):
        registry.refuse_ambiguous(["l-red", "mm-bd"])
    assert "warning: the detector 'mm-bd' is built in" in listing.detectors_text()
    assert registry.build("mm-bd", {})  # by default
    options = ScanOptions(BUNDLED / "clean.onnx", BUNDLED / "images", detectors=("mm-bd",))
    with pytest.raises(UsageError, match="uninstall that package"):
        run_scan(options, None)


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("first", "second"):
        monkeypatch.syspath_prepend(install(tmp_path / package, package, {"same": f"{package}:E"}))
    with pytest.raises(ValueError, match=r"declared by first 1\.0 .* and second 1\.0"):
        registry.find("same")
    assert "uninstall all but one" in listing.detectors_text()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no')", "failed \\(RuntimeError: no\\)"),
        ("return None", "returned NoneType, not a DetectorResult"),
        (
            "import dataclasses; from detectors.mm_bd import MmBd; "
            "return dataclasses.replace(MmBd(steps=1, starts=1)(data), p_calibrated=float('nan'))",
            "returned the p-value nan",
        ),
    ],
)
def test_what_goes_wrong_in_it_is_its_fault(body: str, words: str) -> None:
    class Failing:
        def __call__(self, data: object) -> object:
            scope: dict[str, object] = {}
            exec(f"def run(data):\n    {body}", scope)
            return scope["run"](data)  # type: ignore[operator]

    detector = plugins.Foreign("other", Failing())  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match=words):
        detector(linear_input(orthonormal_rows(5), 1.0))


def test_an_error_of_a_foreign_detector_crosses_from_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_module(
        tmp_path,
        monkeypatch,
        "failing",
        "from dataclasses import dataclass\nfrom detectors.registry import Entry\n"
        "@dataclass(frozen=True)\nclass A:\n    name: str\n"
        "    def __call__(self, data):\n        raise KeyError('oh')\nENTRY = Entry(A, {}, '')",
    )
    options = ScanOptions(BUNDLED / "clean.onnx", BUNDLED / "images", detectors=("failing",))
    with pytest.raises(DetectorError, match="another package's") as caught:
        run_scan(options, Limits())
    assert caught.value.stage


def test_an_entry_is_on_request_by_default() -> None:
    assert not Entry(object, {}, "").default  # type: ignore[arg-type]
