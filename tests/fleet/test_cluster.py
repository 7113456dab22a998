"""What a fleet asks of a Ray cluster; nothing here needs Ray."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelaudit import __main__
from modelaudit.cli.fleet import Machines, with_address
from modelaudit.errors import UsageError
from modelaudit.fleet.cluster import RayOptions, connected, gpus_of_each
from tests.brightest import brightest


class Nodes:
    """A cluster with the given resources."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._nodes = [{"Alive": True, "Resources": one} for one in resources]

    def nodes(self) -> list[dict[str, Any]]:
        return [*self._nodes, {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}]


def test_scans_take_a_gpu_where_there_is_one() -> None:
    cpus, gpus = Nodes({"CPU": 2.0}), Nodes({"CPU": 2.0}, {"CPU": 1.0, "GPU": 4.0})
    one, share = RayOptions(), RayOptions(gpus=0.25)
    assert [gpus_of_each(cpus, one, device) for device in ("auto", "cpu")] == [0.0, 0.0]
    assert [gpus_of_each(gpus, one, device) for device in ("auto", "cpu", "cuda")] == [1, 0, 1]
    assert gpus_of_each(gpus, share, "auto") == 0.25
    assert gpus_of_each(gpus, RayOptions(gpus=0.0), "auto") == 0.0
    for nodes, options, device, words in (
        (cpus, one, "cuda", "needs 1 GPU, but no node of the Ray cluster has more than 0"),
        (gpus, RayOptions(cpus=3), "cpu", "needs 3 CPU"),
        (gpus, RayOptions(gpus=0.0), "cuda", "hide every GPU"),
    ):
        with pytest.raises(UsageError, match=words):
            gpus_of_each(nodes, options, device)


def test_a_cluster_without_ray_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brightest(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["sweep", str(tmp_path), "--clean-dir", str(tmp_path), "--detector", "l-red"]
    assert __main__.run([*arguments, "--ray"]) == 2
    assert "pip install 'modelaudit-backdoor[ray]'" in capsys.readouterr().err


def test_where_nobody_answers_is_a_clear_error() -> None:
    ray = SimpleNamespace(is_initialized=lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999999"):
        with pytest.raises(UsageError, match="nobody answers there"), connected(ray, address):
            pass


def test_ray_needs_no_address() -> None:
    cases = {
        "models --ray": "models --ray=auto",
        "--ray models": "--ray=auto models",
        "--ray --quiet": "--ray=auto --quiet",
        "--ray=h:1": "--ray=h:1",
        "--ray 10.0.0.1:6379 models": "--ray 10.0.0.1:6379 models",
        "--ray ray://head.example:10001": "--ray ray://head.example:10001",
        "--ray [::1]:6379": "--ray [::1]:6379",
        "--ray local": "--ray local",
        "models": "models",
    }
    for given, expected in cases.items():
        assert with_address(given.split()) == expected.split()


def test_options_that_contradict_each_other() -> None:
    assert Machines(jobs=2).ray_options is None
    assert Machines(ray="h:1", ray_cpus=2, ray_gpus=0.5).ray_options == RayOptions("h:1", 2, 0.5)
    with pytest.raises(UsageError, match="exclude each other"):
        _ = Machines(jobs=2, ray="auto").ray_options
    for odd in ("models", "h:port", ""):
        with pytest.raises(UsageError, match="expected HOST:PORT"):
            _ = Machines(ray=odd).ray_options
    for gpus in (-1.0, 1.5):
        with pytest.raises(UsageError, match="a share from 0 to 1 or a whole number"):
            RayOptions(gpus=gpus)
    with pytest.raises(UsageError, match="At least 1 core"):
        RayOptions(cpus=0)
