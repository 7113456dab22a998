"""How split scans are sent over a cluster and put together again; nothing here needs Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelaudit.failure import Failure
from modelaudit.finished import FinishedDetector
from modelaudit.fleet import ray as fleet_ray
from modelaudit.fleet.cluster import RayOptions
from modelaudit.fleet.node import Parcel
from modelaudit.fleet.ray import RayExecutor
from modelaudit.fleet.runner import Job
from modelaudit.options import ScanOptions
from modelaudit.plain import to_plain
from modelaudit.report import Report
from tests.brightest import brightest, write_images
from tests.formats.reports import clean

DETECTORS = ("mm-bd", "l-red-sparse", "l-red")
DEAREST_FIRST = ["l-red-sparse", "l-red", "mm-bd"]
SETTINGS = {"l-red": {"tau_max": "2"}, "mm-bd": {"steps": "5"}}


class LostError(Exception):
    """As Ray says it of a task whose node died too often."""


class OneAfterTheOther:
    """A cluster that answers at once, as far as the executor asks it something.

    Attributes:
        sent: the tasks, in order.
        needed: what each of them needs of a node.
        cpus: how many each of them in turn needs.
        stored: how many objects were put into the store.
        most: how many tasks were under way at the same time.
    """

    exceptions = SimpleNamespace(RayError=LostError)

    def __init__(
        self,
        cpus: float,
        gpus: float = 0,
        lost: Sequence[str] = (),
        error: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            lost: detectors whose parts are lost.
            error: what every task answers instead of a result.
        """
        self.sent: list[Parcel] = []
        self.needed: dict[str, float] = {}
        self.cpus: list[int] = []
        self.stored = 0
        self.most = 0
        self._resources = {"CPU": cpus, "GPU": gpus}
        self._lost = lost
        self._error = error

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.cluster_resources()}]

    def cluster_resources(self) -> dict[str, float]:
        return self._resources

    def put(self, value: object) -> int:
        self.stored += 1
        return self.stored

    def remote(self, **needed: float) -> Any:
        self.needed = needed
        return lambda function: SimpleNamespace(options=self._options)

    def _options(self, num_cpus: int) -> Any:
        self.cpus.append(num_cpus)
        return SimpleNamespace(remote=self._send)

    def _send(self, parcel: Parcel, *_: Any) -> int:
        self.sent.append(parcel)
        return len(self.sent) - 1

    def wait(self, tasks: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        self.most = max(self.most, len(tasks))
        return tasks[:num_returns], tasks[num_returns:]

    def get(self, task: int) -> dict[str, Any]:
        parcel = self.sent[task]
        if self._error:
            return {"error": self._error}
        if not parcel.part:
            return {"report": to_plain(clean())}
        if parcel.options.detectors[0] in self._lost:
            raise LostError
        return {"finished": [to_plain(found(parcel.options.detectors[0]))]}


def found(name: str) -> FinishedDetector:
    """What a detector found, in two seconds."""
    report = replace(clean().detectors[0], detector=name, seconds=2.0)
    return FinishedDetector(
        "0" * 64, report, searched=None, applicable=True, patterns=(), null=None
    )


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    model, images = brightest(tmp_path / "m.onnx"), write_images(tmp_path / "images")
    options = ScanOptions(model, images, detectors=DETECTORS, settings=SETTINGS)
    return [Job(name, name, options) for name in "abcde"]


def scanned(
    jobs: Sequence[Job], cluster: OneAfterTheOther, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Report | Failure]:
    """The results by name, of which there must be one for each job."""
    monkeypatch.setattr(fleet_ray, "import_ray", lambda: cluster)
    results = list(RayExecutor(RayOptions(), None).run(jobs))
    assert sorted(job.name for job, _ in results) == [job.name for job in jobs]
    return {job.name: result for job, result in results}


def test_the_last_task_gets_what_the_parts_found(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = OneAfterTheOther(cpus=2)
    report = scanned(jobs[:1], cluster, monkeypatch)["a"]
    assert isinstance(report, Report)
    *parts, last = cluster.sent
    assert [one.options.detectors for one in parts] == [(name,) for name in DEAREST_FIRST]
    assert all(one.part and not one.finished for one in parts)
    assert not last.part
    assert last.options.detectors == DETECTORS
    assert last.options.settings == SETTINGS
    assert [one.report.detector for one in last.finished] == DEAREST_FIRST
    assert report.seconds == clean().seconds + 3 * 2
    assert cluster.cpus == [one.threads for one in cluster.sent]
    assert cluster.stored == 2  # the model, and the images


def test_a_part_that_is_lost_is_left_to_the_last_task(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = OneAfterTheOther(cpus=2, lost=("l-red", "mm-bd"))
    scanned(jobs[:1], cluster, monkeypatch)
    assert [one.report.detector for one in cluster.sent[-1].finished] == ["l-red-sparse"]


def test_many_models_are_not_split_and_each_is_counted_once(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = OneAfterTheOther(cpus=2)
    scanned(jobs, cluster, monkeypatch)
    assert [one.part for one in cluster.sent] == [False] * 4 + [True] * 3 + [False]
    assert cluster.most <= 6  # two tasks for each core, and the parts of one model
    assert cluster.stored == 5 + 1
    cluster = OneAfterTheOther(cpus=1)
    scanned(jobs, cluster, monkeypatch)
    assert not any(one.part for one in cluster.sent)


def test_every_task_of_a_scan_takes_a_gpu_where_scans_do(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = OneAfterTheOther(cpus=8, gpus=2)
    scanned(jobs[:2], cluster, monkeypatch)
    assert [one.part for one in cluster.sent] == [False, False]  # as many models as GPUs
    scanned(jobs[:1], cluster, monkeypatch)
    assert [one.part for one in cluster.sent[2:]] == [True] * 3 + [False]
    assert {one.options.device for one in cluster.sent} == {"cuda"}
    assert (cluster.needed["num_cpus"], cluster.needed["num_gpus"]) == (1, 1)


def test_the_error_of_a_split_scan_is_that_of_its_last_task(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"kind": "ModelFileError", "message": "It holds nothing.", "stage": "loading the model"}
    cluster = OneAfterTheOther(cpus=2, error=error)
    result = scanned(jobs[:1], cluster, monkeypatch)["a"]
    assert isinstance(result, Failure)
    assert to_plain(result.error) == error
    assert [one.part for one in cluster.sent] == [True] * 3 + [False]
    assert cluster.sent[-1].finished == ()


def test_a_model_that_is_not_there_is_not_sent_in_parts_either(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs[0].options.model.unlink()
    cluster = OneAfterTheOther(cpus=2)
    result = scanned(jobs[:1], cluster, monkeypatch)["a"]
    assert isinstance(result, Failure)
    assert cluster.sent == []
