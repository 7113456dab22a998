"""Batches that halve where memory runs out."""

from __future__ import annotations

import pytest
import torch

from modelaudit.classifier import Classifier
from modelaudit.memory import BatchSize

CPU = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 9 bytes."


GPU = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError(CPU), RuntimeError(GPU), torch.OutOfMemoryError("0")]
)
def test_what_runs_out_of_memory_is_tried_with_half_the_images(error: Exception) -> None:
    batch, tried = BatchSize(12), list[int]()

    def work() -> int:
        tried.append(batch.images)
        if batch.images > 3:
            raise error
        return 10 * batch.images

    assert not batch.halved
    assert batch.within_memory(work) == 30
    assert batch.halved
    assert batch.within_memory(work) == 30
    assert tried == [12, 6, 3, 3]


@pytest.mark.parametrize("error", [MemoryError("none"), ValueError("wrong")])
def test_other_errors_pass_and_so_does_a_lack_of_memory_for_one_image(error: Exception) -> None:
    batch = BatchSize(2)

    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        batch.within_memory(work)
    assert batch.images == (1 if isinstance(error, MemoryError) else 2)


def test_predictions_are_made_in_batches_that_fit() -> None:
    sizes = list[int]()

    def model(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise RuntimeError(CPU)
        return x.flatten(1)

    classifier, pixels = Classifier(model, 3, (1, 1, 3)), torch.eye(3).view(3, 1, 1, 3)
    assert classifier.predict(pixels, batch_size=4).tolist() == [0, 1, 2]
    assert sizes == [3, 2, 1]
