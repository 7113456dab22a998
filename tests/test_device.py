"""Where a model runs, and how exactly: what can be tested without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modelaudit import CleanImages, device, scan
from modelaudit.device import device_of, exact_arithmetic
from modelaudit.errors import UsageError
from modelaudit.isolation.limits import NOT_LIMITED
from modelaudit.isolation.sandbox import limit_memory

CONVOLUTIONS, PRODUCTS = torch.backends.cudnn, torch.backends.cuda.matmul


def rounding() -> tuple[bool, bool]:
    return CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32


@pytest.fixture
def rounded() -> Iterator[None]:
    """On a GPU torch would round convolutions and products to TF32."""
    before = rounding()
    CONVOLUTIONS.allow_tf32 = PRODUCTS.allow_tf32 = True
    yield
    CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32 = before


@pytest.mark.usefixtures("rounded")
def test_nothing_is_rounded_within_and_all_is_as_before_afterwards() -> None:
    with exact_arithmetic():
        assert rounding() == (False, False)
    assert rounding() == (True, True)
    with pytest.raises(KeyError), exact_arithmetic():
        raise KeyError
    assert rounding() == (True, True)


@pytest.mark.skipif(not hasattr(CONVOLUTIONS, "conv"), reason="newer than this torch")
@pytest.mark.usefixtures("rounded")
def test_the_newer_settings_are_kept_where_somebody_has_used_them() -> None:
    before = CONVOLUTIONS.conv.fp32_precision
    CONVOLUTIONS.conv.fp32_precision = "ieee" if before == "tf32" else "tf32"
    try:
        mine = CONVOLUTIONS.conv.fp32_precision, PRODUCTS.fp32_precision
        with exact_arithmetic():
            assert (CONVOLUTIONS.conv.fp32_precision, PRODUCTS.fp32_precision) == ("ieee", "ieee")
        assert (CONVOLUTIONS.conv.fp32_precision, PRODUCTS.fp32_precision) == mine
    finally:
        CONVOLUTIONS.conv.fp32_precision = before


@pytest.mark.usefixtures("rounded")
def test_a_scan_rounds_nothing() -> None:
    seen = set()

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            seen.add(rounding())
            logits: Tensor = self.last(x.flatten(1))
            return logits

    images = torch.rand(12, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    network = Watching()
    labels = network(images).argmax(1)
    seen.clear()
    scan(network, CleanImages.from_tensors(images, labels), detectors=("mm-bd",))
    assert seen == {(False, False)}
    assert rounding() == (True, True)


def fail(message: str) -> None:
    raise RuntimeError(message)


def test_auto_takes_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(device, "_problem_with_cuda", lambda: "")
    assert [device_of(name) for name in ("auto", "cuda", "cpu")] == [
        (cuda, ""),
        (cuda, ""),
        (cpu, ""),
    ]
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "_DRIVER", tmp_path / "none")
    assert device_of("auto") == (cpu, "")
    with pytest.raises(UsageError, match=r"finds no CUDA device here\. Use --device cpu"):
        device_of("cuda")


def test_a_gpu_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "_DRIVER", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto")[1] == "The GPU was not used: torch finds no CUDA device here."
    # As one that is too old for this torch.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: fail("no kernel image is available"))
    found, note = device_of("auto")
    assert found == torch.device("cpu")
    assert "no kernel image" in note
    with pytest.raises(UsageError, match=r"no kernel image .* Use --device cpu"):
        device_of("cuda")


def test_addresses_are_not_limited_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even before CUDA is initialised, which needs more addresses than there is memory.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert limit_memory(2**20, "auto").startswith(NOT_LIMITED)
