"""Detectors side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detectors.types import DetectorInput, DetectorResult
from modelaudit import lanes
from modelaudit.classifier import Classifier
from modelaudit.conditions import Conditions
from modelaudit.detect import run_detectors
from modelaudit.errors import ModelFileError
from modelaudit.lanes import (
    MOST,
    Over,
    Together,
    lanes_of,
    lanes_wanted,
    side_by_side,
    threads_of_each,
)
from modelaudit.loaders import load_model
from modelaudit.options import ScanOptions
from modelaudit.scanning import scan
from modelaudit.suspect import prepare
from tests.conftest import BUNDLED


class Remembers(nn.Module):
    """Keeps what it has computed in an attribute, as many networks do, and waits before it reads it
    again until another one has computed, too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.features = x.flatten(1)
        if len(x) == SEVERAL:
            MET.wait(10)
        return self.head(self.features)


class Hooked(nn.Module):
    """Keeps it in a closure, which a copy of the network shares."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.seen = nn.Flatten(), nn.Linear(4, 3), {}
        self.body.register_forward_hook(lambda module, given, out: self.seen.update(out=out))

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.head(self.seen["out"])


SEVERAL = 5
MET = threading.Barrier(2)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def always(name: str) -> bool:
    return True


def lanes_with(module: nn.Module, detectors: int = 8) -> tuple[Classifier, ...]:
    return lanes_of(Classifier(module, 3, (1, 2, 2)), detectors)


def test_threads_are_shared_out() -> None:
    for threads in (1, 2, 3, 6, 16):
        for detectors in (1, 2, 8):
            side, each = (
                lanes_wanted("cpu", threads, detectors),
                threads_of_each("cpu", threads, detectors),
            )
            assert 1 <= side <= min(MOST, detectors)
            assert each >= 1
            assert side * each <= threads
    for asked, lanes_and_threads in {
        ("cpu", 2, 8): (2, 1),
        ("cpu", 16, 8): (4, 4),
        ("cpu", 16, 1): (1, 16),
        ("cuda", 16, 8): (1, 16),  # one detector fills it
    }.items():
        assert (lanes_wanted(*asked), threads_of_each(*asked)) == lanes_and_threads


@pytest.mark.usefixtures("two_threads")
def test_lanes_share_parameters_and_nothing_that_changes() -> None:
    first, second = lanes_with(Remembers())
    assert first.module is not second.module
    assert next(first.module.parameters()) is next(second.module.parameters())
    images = torch.rand(2, SEVERAL, 1, 2, 2)
    found = side_by_side(
        ["0", "1"],
        always,
        lambda name, lane: lane(images[int(name)]),
        (first, second),
        list,
    )
    logits = dict(found)
    for name in logits:
        direct = first.module.head(images[int(name)].flatten(1))
        assert torch.allclose(logits[name], direct)
    assert first.image_passes == second.image_passes == 2.5


@pytest.mark.usefixtures("two_threads")
def test_a_model_that_cannot_be_copied_has_one_lane() -> None:
    class Alone(nn.Module):
        def __deepcopy__(self, memo: object) -> Alone:
            raise TypeError("there is only one")

    assert len(lanes_with(Alone())) == 1
    assert len(lanes_with(Hooked())) == 1
    assert len(lanes_of(Classifier(lambda x: x.flatten(1)[:, :3], 3, (1, 2, 2)), 8)) == 1


@pytest.mark.usefixtures("two_threads")
def test_parameters_can_be_copied_too() -> None:
    classifier = Classifier(Remembers(), 3, (1, 2, 2))
    first, second = lanes_of(classifier, 8, common_parameters=False)
    assert next(first.module.parameters()) is not next(second.module.parameters())
    assert classifier.image_passes == 0  # the comparison is no part of the scan


@pytest.mark.usefixtures("two_threads")
def test_where_memory_is_short_there_is_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "room", lambda: 2e9)
    assert len(lanes_with(nn.Flatten())) == 1
    monkeypatch.setattr(lanes, "room", lambda: 3e9)
    assert len(lanes_with(nn.Flatten())) == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "exported"])
def test_every_kind_of_file_has_lanes_that_say_the_same(kind: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    x = torch.rand(3, 1, 28, 28)
    if kind == "onnx":
        path = BUNDLED / "badnets.onnx"
    elif kind == "torchscript":
        path = tmp_path / "network.pt"
        torch.jit.trace(network, x).save(path)
    else:
        path = tmp_path / "network.pt2"
        torch.export.save(torch.export.export(network, (x,)), path)
    loaded = load_model(path)
    first, second = lanes_of(Classifier(loaded.module, 10, (1, 28, 28)), 2)
    assert torch.equal(first(x), second(x))


def test_threads_are_as_before_afterwards(two_threads: None) -> None:
    def threads(name: str, lane: Classifier) -> int:
        return torch.get_num_threads()

    two = lanes_with(nn.Flatten())
    assert dict(side_by_side("ab", always, threads, two, list)) == {"a": 1, "b": 1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_one_that_fails_ends_the_others_and_what_has_finished_is_kept() -> None:
    ended, begun = threading.Event(), []

    def work(name: str, lane: Classifier) -> str:
        begun.append(name)
        if name == "bad":
            raise ModelFileError("no")
        assert ended.wait(10)
        return name

    found = side_by_side(
        ["good", "bad", "later"], always, work, lanes_with(nn.Flatten()), ended.set
    )
    with pytest.raises(ModelFileError):
        dict(found)
    assert ended.is_set()
    assert sorted(begun) == ["bad", "good"]


@pytest.mark.usefixtures("two_threads")
def test_what_finishes_while_the_end_is_waited_for_is_kept() -> None:
    ended = threading.Event()

    def work(name: str, lane: Classifier) -> str:
        if name == "bad":
            raise Over
        assert ended.wait(10)
        return name

    found = side_by_side(["good", "bad"], always, work, lanes_with(nn.Flatten()), ended.set)
    assert next(found) == ("good", "good")
    with pytest.raises(Over):
        next(found)


def test_what_another_waits_for_goes_first() -> None:
    for number in (1, 2):
        done: list[str] = []
        classifier = Classifier(nn.Flatten(), 4, (1, 2, 2))
        names = ["last", "first", "second"]

        def ready(name: str, done: list[str] = done) -> bool:
            return name != "last" or {"first", "second"} <= set(done)

        for name, _ in side_by_side(names, ready, lambda n, lane: n, [classifier] * number, list):
            done.append(name)
        assert done[-1] == "last"
        assert len(done) == 3


def test_progress_is_that_of_all_together() -> None:
    told: list[tuple[str, float]] = []
    together = Together({"a": 1, "b": 3}, lambda stage, share: told.append((stage, share)))
    together("a", 0.0)
    together("b", 0.5)
    together("a", 0.5)
    together.finished("a")
    together("b", 1.0)
    assert told == [("a", 0.0), ("a, b", 0.375), ("a, b", 0.5), ("b", 1.0)]
    together.end()
    with pytest.raises(Over):
        together("b", 0.9)


@pytest.mark.usefixtures("two_threads")
def test_a_scan_with_lanes_says_what_one_without_says() -> None:
    settings = {
        "l-red": {"tau_max": "2"},
        "l-red-sparse": {"tau_max": "2"},
        "mm-bd": {"starts": "2"},
    }
    names = ("l-red", "l-red-sparse", "mm-bd", "joint")
    options = ScanOptions(
        BUNDLED / "badnets.onnx",
        BUNDLED / "images",
        images_per_class=1,
        detectors=names,
        settings=settings,
    )
    stages: list[str] = []
    with_lanes = scan(options, lambda stage, share: stages.append(stage))
    torch.set_num_threads(1)
    without = scan(options)
    assert any("," in stage for stage in stages)
    assert without.report.image_passes == with_lanes.report.image_passes
    for one, other in zip(without.results, with_lanes.results, strict=True):
        assert (one.detector, one.classes, one.p_calibrated) == (
            other.detector,
            other.classes,
            other.p_calibrated,
        )


@pytest.mark.usefixtures("two_threads")
def test_an_error_names_its_detector() -> None:
    def fails(data: DetectorInput) -> DetectorResult:
        raise ModelFileError("no")

    def waits(data: DetectorInput) -> DetectorResult:
        while True:
            data.progress(0.5)

    options = ScanOptions(BUNDLED / "clean.onnx", BUNDLED / "images", images_per_class=1)
    suspect = prepare(options, lambda stage, share: None)
    detectors = {"mm-bd": waits, "l-red": fails}
    with pytest.raises(ModelFileError) as failure:
        run_detectors(detectors, suspect, options, Conditions(), lambda stage, share: None)
    assert failure.value.stage == "l-red"
