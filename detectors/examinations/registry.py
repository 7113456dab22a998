"""The examinations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from detectors.examinations.clustering import ActivationClustering
from detectors.examinations.fine_pruning import FinePruning
from detectors.examinations.grad_cam import GradCam
from detectors.examinations.latent_view import LatentView
from detectors.examinations.spectral import SpectralSignatures
from detectors.examinations.strip import Strip
from detectors.examinations.types import Examiner


@dataclass(frozen=True)
class Entry:
    """A registered examination.

    Attributes:
        config: frozen dataclass whose fields are the settings; an instance is the examination.
        summary: one line for ``modelaudit detectors``.
        needs: what it looks at: a ``finding``, ``suspects`` or ``train`` images; one is enough.
        cheap: settings with which it is done unasked after a finding; ``None``: never unasked.
    """

    config: Callable[..., Examiner]
    summary: str
    needs: tuple[str, ...]
    cheap: Mapping[str, Any] | None = field(default=None)


EXAMINATIONS: Mapping[str, Entry] = MappingProxyType(
    {
        LatentView.name: Entry(
            LatentView, "distance of stamped and clean images in feature space", ("finding",), {}
        ),
        FinePruning.name: Entry(
            FinePruning, "does the pattern survive pruning of dormant units", ("finding",), {}
        ),
        Strip.name: Entry(
            Strip,
            "entropy of superposed inputs: suspects, and stamped images",
            ("finding", "suspects"),
            {"superpositions": 16},
        ),
        GradCam.name: Entry(GradCam, "where the model looks at the pattern", ("finding",)),
        SpectralSignatures.name: Entry(
            SpectralSignatures, "outliers among training images", ("train",)
        ),
        ActivationClustering.name: Entry(
            ActivationClustering, "classes of training images in two groups", ("train",)
        ),
    }
)
