"""Clean images with the patterns of many rows in them, and what the model makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import one_hot

from detectors.embeddings.protocol import Embedding
from detectors.rows import Rows
from modelaudit.classifier import Classifier
from modelaudit.memory import BatchSize

#: Pixel values per forward batch on a CPU: 81 images of 3x32x32. Larger batches leave its caches
#: (measured on two cores: half the speed with 320 images in a VGG).
PIXELS_PER_BATCH = 250_000
#: A batch has more images than that where the model makes little of them: as many as it takes for
#: its tensors to have so many values in the mean (220 of 3x64x64 in a MobileNet instead of 20).
VALUES_PER_BATCH = 500_000
#: Images per batch, however large they are. (One by one, a ResNet-18 does a quarter fewer of
#: 3x224x224 per second.)
FEWEST_PER_BATCH = 8
#: A GPU is given so many times as many.
_GPU_FACTOR = 16


def images_in(values: int, classifier: Classifier) -> int:
    """How many of the classifier's images have ``values`` pixel values, at least 1.

    Args:
        values: on a CPU; on a GPU 16 times as many are meant.
    """
    return max(1, _scale(classifier) * values // math.prod(classifier.input_shape))


def images_per_batch(classifier: Classifier) -> int:
    """How many images make a batch for a forward and a backward pass."""
    by_values = int(_scale(classifier) * VALUES_PER_BATCH / classifier.values_per_tensor)
    return max(FEWEST_PER_BATCH, images_in(PIXELS_PER_BATCH, classifier), by_values)


def _scale(classifier: Classifier) -> int:
    return _GPU_FACTOR if classifier.device.type == "cuda" else 1


@dataclass(frozen=True)
class Batch:
    """Which images get the patterns of which rows.

    Attributes:
        row: index into the rows ``[b]``.
        image: index into the clean images ``[b]``.
    """

    row: Tensor
    image: Tensor

    def __len__(self) -> int:
        return len(self.row)


class Stamping:
    """Puts the patterns of rows into the images of their source classes.

    Args:
        classifier: the suspect model.
        pixels: clean images ``[n, C, H, W]`` in [0, 1].
        labels: their classes ``[n]``.
        embedding: how a pattern is put into an image.

    Attributes:
        batch: how many images make a batch.
    """

    def __init__(
        self, classifier: Classifier, pixels: Tensor, labels: Tensor, embedding: Embedding
    ) -> None:
        self.classifier = classifier
        self.labels = labels.to(classifier.device)
        self._ask = embedding.ask(classifier, pixels.to(classifier.device))
        classes = one_hot(self.labels, classifier.num_classes).float()
        # [n, K]: row i holds 1/|D_s| for the class s of image i, so that (hits @ this) is q_st.
        self._share = classes / classes.sum(0).clamp_min(1)
        self.batch = BatchSize(images_per_batch(classifier))

    def groups(self, rows: Rows) -> Iterator[slice]:
        """Consecutive rows whose images fit one batch; a larger row is a group of its own."""
        images = (rows.support.long() @ (self._share > 0).long().sum(0)).tolist()
        start, total = 0, 0
        for index, number in enumerate(images):
            if index > start and total + number > self.batch.images:
                yield slice(start, index)
                start, total = index, 0
            total += number
        yield slice(start, len(images))

    def batches(self, rows: Rows) -> Iterator[Batch]:
        """All images of the rows' sources, each with its row."""
        row, image = rows.support[:, self.labels].nonzero(as_tuple=True)
        parts = max(1, -(-len(row) // self.batch.images))  # of one size: no small last one
        yield from map(Batch, row.tensor_split(parts), image.tensor_split(parts))

    def forward(
        self, theta: Tensor, rows: Rows, batch: Batch, bfloat16: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the model says of the batch with the patterns ``theta`` ``[R, *]`` in it.

        Args:
            bfloat16: see :meth:`Classifier.__call__`.

        Returns:
            Whether each image is classified as its goal, 0 or 1 ``[b]``, and log p(goal | image)
            ``[b]``.
        """
        logits = self._ask(theta, batch.row, batch.image, bfloat16)
        goal = rows.goals[batch.row, self.labels[batch.image]]
        log_p = logits.log_softmax(1).gather(1, goal[:, None]).squeeze(1)
        return (logits.detach().argmax(1) == goal).float(), log_p

    def add_hits(self, q: Tensor, batch: Batch, hit: Tensor) -> None:
        """Add the batch's part to the misclassification fractions q_st ``[R, K]``, in place.

        Args:
            hit: from :meth:`forward`.
        """
        q.index_add_(0, batch.row, hit[:, None] * self._share[batch.image])

    def objective(self, w: Tensor, batch: Batch, log_p: Tensor) -> Tensor:
        """The batch's part of Σ_t J_t, a scalar with gradients; L-RED paper, below Eq. 5.

        ``J_t = Σ_s w_s / |D_s| Σ_x log p(t | m(x; v))``

        Args:
            w: source weights ``[R, K]``.
            log_p: from :meth:`forward`.
        """
        weight = (w[batch.row] * self._share[batch.image]).sum(1)
        return (weight * log_p).sum()
