"""Fleets on a real Ray cluster of several nodes on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from modelaudit import __main__
from modelaudit.failure import Failure
from modelaudit.fleet.cluster import RayOptions
from modelaudit.fleet.node import Parcel
from modelaudit.fleet.parts import parts_of
from modelaudit.fleet.ray import RayExecutor
from modelaudit.fleet.runner import Job, attempt, jobs_of, run_fleet
from modelaudit.options import ScanOptions
from modelaudit.report import Report
from modelaudit.run import scan_in_worker
from tests import gated
from tests.brightest import brightest, write_images
from tests.conftest import BUNDLED
from tests.fleet.timeless import timeless

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.ray
_MEMORY = 80 * 2**20
SHORT = {"l-red": {"tau_max": "2"}}
#: A node that is gone is noticed within seconds; one that is only slow is given time.
WATCHFUL = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of :mod:`tests.gated`, which nodes that are started now know."""
    folder = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(gated.FOLDER, str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield folder


@pytest.fixture(scope="module")
def cluster(gate: Path) -> Iterator[Any]:
    """A head that runs nothing, and two nodes with one core each."""
    head = {"num_cpus": 0, "object_store_memory": _MEMORY, "_system_config": WATCHFUL}
    running = Cluster()
    _patiently(lambda: running.add_node(**head, include_dashboard=False))
    for _ in range(2):
        _patiently(lambda: running.add_node(num_cpus=1, object_store_memory=_MEMORY))
    yield running
    with suppress(Exception):
        ray.shutdown()
    running.shutdown()


def test_the_same_numbers_as_here_and_isolation_stays_on(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brightest(tmp_path / "a.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    write_images(tmp_path / "images")
    options = ["--detector", "mm-bd", "--format", "json", "--report-dir"]

    def swept(folder: str, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
        reports = tmp_path / folder
        assert __main__.run(["sweep", str(tmp_path), *options, str(reports), *more]) == 2
        summary = json.loads(capsys.readouterr().out)
        report = json.loads((reports / "a.onnx.json").read_text())
        for one in (summary, *summary["models"], report, *report["detectors"]):
            del one["seconds"]
        del report["environment"]["created"]
        return summary, report

    there, report_there = swept("ray", "--ray", cluster.address)
    # One thread each, as on the cluster: sums of many threads differ in the last digits.
    here, report_here = swept("local", "--jobs", "2")
    assert there == here
    assert [one["verdict"] for one in there["models"]] == ["no-backdoor-found", "error"]
    assert there["models"][0]["p"] is not None
    isolation = report_there["environment"]["isolation"]
    assert isolation["limits"] == "set by the system"
    memory = report_here["environment"]["isolation"].pop("memory")
    assert isolation.pop("memory") == memory
    assert report_there == report_here


def test_one_model_is_scanned_on_all_nodes_with_the_numbers_of_one(cluster: Any) -> None:
    """A finding, so that explaining it and looking closer follow what other nodes found."""
    options = ScanOptions(
        BUNDLED / "badnets.onnx",
        BUNDLED / "images",
        images_per_class=2,
        detectors=("mm-bd", "l-red"),
        settings={"l-red": {"per_class": "1"}, "mm-bd": {"starts": "2", "steps": "5"}},
        device="cpu",
    )
    assert len(parts_of(Parcel("", options, (), None, None, False, threads=1))) == 2
    ((_, there),) = RayExecutor(RayOptions(cluster.address), None).run(jobs_of({"m": options}))
    assert isinstance(there, Report), there
    assert there.verdict == "backdoored"
    assert [one.detector for one in there.findings] == ["l-red"]
    assert there.findings[0].held_out is not None
    assert timeless(there) == timeless(_scanned_here(options))


def test_a_node_that_dies_costs_time_only(
    cluster: Any, gate: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both nodes are in the middle of a scan when one of them is killed."""
    jobs = _gated_jobs(tmp_path, 3, "l-red")
    known = _swept_while_a_node_dies(jobs, cluster, gate)
    assert sorted(known) == [job.name for job in jobs]
    assert capfd.readouterr().out == ""  # stdout is for the report
    assert gated.begun(gate) == len(jobs) + 1  # the one that was lost began a second time
    expected = _scanned_here(jobs[0].options)
    assert isinstance(expected, Report)
    for name, report in known.items():
        assert isinstance(report, Report), report
        assert report.model.path.endswith(name)
        assert report.detectors[0].classes == expected.detectors[0].classes
        assert report.image_passes == expected.image_passes


def test_a_part_of_a_scan_that_dies_with_its_node_is_done_again(
    cluster: Any, gate: Path, tmp_path: Path
) -> None:
    """Both nodes are in the middle of a detector of the only model when one of them is killed."""
    _patiently(lambda: cluster.add_node(num_cpus=1, object_store_memory=_MEMORY))
    (job,) = _gated_jobs(tmp_path, 1, "l-red", "mm-bd")
    before = gated.begun(gate)
    known = _swept_while_a_node_dies([job], cluster, gate)
    # Two parts, the one that was lost once more, and the last task.
    assert gated.begun(gate) - before == 2 + 1 + 1
    assert timeless(known[job.name]) == timeless(_scanned_here(job.options))


def _swept_while_a_node_dies(
    jobs: Sequence[Job], cluster: Any, gate: Path
) -> dict[str, Report | Failure]:
    """What is known of the models, each counted once; a node is killed when all nodes scan."""
    recorded: list[str] = []
    known: dict[str, Report | Failure] = {}
    before = gated.begun(gate)
    (gate / gated.SHUT).touch()

    def record(job: Job, result: Report | Failure) -> Report | Failure:
        recorded.append(job.name)
        return result

    def sweep() -> None:
        executor = RayExecutor(RayOptions(cluster.address), None)
        known.update(run_fleet(jobs, executor, {}, record, lambda known: None))

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        _wait_until(lambda: gated.begun(gate) - before == len(cluster.worker_nodes))
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    finally:
        (gate / gated.SHUT).unlink()
        thread.join(timeout=120)
    assert not thread.is_alive()
    assert sorted(recorded) == sorted(known)
    return known


def _scanned_here(options: ScanOptions) -> Report | Failure:
    """In one piece, with as many threads as a task on the cluster."""
    scan = partial(scan_in_worker, limits=None, threads=1)
    return attempt(scan, Job("here", "", options))


def _patiently(start: Callable[[], object]) -> None:
    """Ray gives a node 30 seconds to start, which is little on a machine that has much to do."""
    for _ in range(2):
        try:
            start()
            return
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    start()


def _gated_jobs(folder: Path, number: int, *detectors: str) -> list[Job]:
    images = write_images(folder / "images")
    arch = f"{gated.__name__}:{gated.brightest_behind_a_gate.__name__}"
    scans = {}
    for i in range(number):
        path = folder / f"m{i}.safetensors"
        safetensors.torch.save_file(gated.Brightest().state_dict(), path)
        scans[path.name] = ScanOptions(
            path, images, arch=arch, detectors=detectors, settings=SHORT, device="cpu"
        )
    return jobs_of(scans)


def _wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for a minute")
