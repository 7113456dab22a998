"""A checkpoint saves time and never stops a scan, whatever is in its folder."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelaudit import checkpoint as checkpoint_module
from modelaudit.checkpoint import KEPT_FOR, Checkpoint
from modelaudit.finished import FinishedDetector, KeptNull, KeptPattern, KeptTensor
from modelaudit.plain import from_plain, to_plain
from tests.formats.reports import backdoored

KEY, OTHER, MODEL = "a" * 64, "b" * 64, "c" * 64
TENSOR = KeptTensor("float32", (1, 2), "AACAPwAAAEA=")
FINISHED = FinishedDetector(
    key=KEY,
    report=replace(backdoored().detectors[0], p_holm=None),
    applicable=True,
    searched=KeptTensor("bool", (3,), "AQAB"),
    patterns=(KeptPattern(3, TENSOR, "additive", ()),),
    null=KeptNull(2.5, 0.1, 10, (-3.0, -1.0), 0.02, 0.9),
)


class Store:
    """A checkpoint and what it noted; every ``open`` is another scan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def open(self) -> Checkpoint:
        return Checkpoint(self.folder, self.notes.append)

    @property
    def file(self) -> Path:
        (file,) = self.folder.glob("*.json")
        return file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "scans" / MODEL)


def test_there_and_back(store: Store) -> None:
    store.open().add(FINISHED)
    assert store.open().load() == (FINISHED,)
    assert store.notes == []
    assert [path.name for path in store.folder.iterdir()] == [f"{KEY}.json"]


def test_what_is_taken_over_is_said_once(store: Store) -> None:
    store.open().add(FINISHED)
    second = store.open()
    second.load()
    second.add(FINISHED)
    second.add(FINISHED)
    assert store.notes == ["l-red: taken over from a scan that was not finished"]


def test_a_finished_scan_removes_its_own_only(store: Store) -> None:
    store.open().add(replace(FINISHED, key=OTHER))
    scan = store.open()
    scan.load()
    scan.add(FINISHED)
    scan.clear()
    assert [one.key for one in store.open().load()] == [OTHER]
    last = store.open()
    last.add(replace(FINISHED, key=OTHER))
    last.clear()
    assert not store.folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("-27.9", "-27.8"),
        lambda text: text.replace('"p_plugin"', '"p_plug"'),
        lambda text: "[]\n" + text.splitlines()[1],
        lambda text: text + "\nmore",
        lambda text: "\x00\xff" + text,
        lambda text: "[" * 100_000 + "\n" + "[" * 100_000,
    ],
)
def test_a_damaged_file_is_left_out_with_a_note(store: Store, damage: Any) -> None:
    store.open().add(FINISHED)
    path = store.file
    changed = damage(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed, encoding="latin-1")
    store.open().add(replace(FINISHED, key=OTHER))
    assert [one.key for one in store.open().load()] == [OTHER]
    (note,) = store.notes
    assert str(path) in note
    assert "runs again" in note


def test_another_versions_file_is_left_out_silently(store: Store) -> None:
    store.open().add(FINISHED)
    head, body = store.file.read_text().splitlines()
    store.file.write_text(f"{json.dumps({**json.loads(head), 'modelaudit': '0.0.1'})}\n{body}\n")
    assert store.open().load() == ()
    assert store.notes == []


def test_a_folder_that_cannot_be_written_to_is_said_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "scans").write_text("a file, where a folder has to be")
    scan = store.open()
    assert scan.load() == ()
    scan.add(FINISHED)
    scan.add(replace(FINISHED, key=OTHER))
    scan.clear()
    (note,) = store.notes
    assert "nothing can be kept in" in note


def test_a_worker_cannot_fill_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "_MOST", 3)
    scan = store.open()
    for number in range(9):
        scan.add(replace(FINISHED, key=f"{number:064x}"))
    assert len(store.open().load()) == 3
    monkeypatch.setattr(checkpoint_module, "_LONGEST", 100)
    other = Store(store.folder.parent / OTHER)
    other.open().add(FINISHED)
    assert not other.folder.exists()


def test_what_nobody_came_back_for_is_removed(store: Store) -> None:
    old, mine = Store(store.folder.parent / OTHER), store.folder.parent / "mine"
    old.open().add(FINISHED)
    store.open().add(FINISHED)
    (mine / "empty").mkdir(parents=True)
    (mine / "notes.json").write_text("{}")
    before = time.time() - KEPT_FOR - 60
    for path in (old.file, mine / "notes.json", mine / "empty"):
        os.utime(path, (before, before))
    assert store.open().load() == (FINISHED,)
    assert not old.folder.exists()
    assert len(list(mine.iterdir())) == 2


def test_a_model_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    assert Checkpoint.of_model(tmp_path, tmp_path / "missing.onnx") is None
    model = tmp_path / "model.onnx"
    model.write_bytes(b"anything")
    assert Checkpoint.of_model(tmp_path, model) is not None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("key",), "../../../etc/passwd", "64 hex digits"),
        (("key",), "A" * 64, "64 hex digits"),
        (("searched", "data"), "AQ==", "3 bytes"),
        (("searched", "data"), "not base64", "base64"),
        (("searched", "shape"), [-1, -3], "has 3 bytes"),
        (("searched", "dtype"), "object", "float32, bool"),
        (("null", "count"), 1.5, "int expected"),
        (("report", "p_calibrated"), "0.5", "float expected"),
    ],
)
def test_nothing_else_comes_in(path: tuple[str, ...], value: Any, words: str) -> None:
    plain = to_plain(FINISHED)
    place = plain
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        from_plain(FinishedDetector, plain)
