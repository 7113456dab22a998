"""Ways to put a pattern into an image. A new one is one new file and one line in ``EMBEDDINGS``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from detectors.embeddings.additive import Additive
from detectors.embeddings.colour import Colour
from detectors.embeddings.generator import Generator
from detectors.embeddings.neurons import Neurons
from detectors.embeddings.patch import Patch
from detectors.embeddings.protocol import Embedding
from detectors.embeddings.sparse import Sparse
from detectors.embeddings.warp import Warp

EMBEDDINGS: Mapping[str, Embedding] = MappingProxyType(
    {
        embedding.name: embedding
        for embedding in (Additive(), Sparse(), Warp(), Generator(), Neurons(), Patch(), Colour())
    }
)

__all__ = ["EMBEDDINGS", "Additive", "Embedding", "Generator", "Neurons", "Patch", "Sparse", "Warp"]
