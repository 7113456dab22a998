"""The stages of a scan, as the progress display and the report of a failure name them."""

from __future__ import annotations

from collections.abc import Callable

#: Called with a stage's name and the share of it that is done, in [0, 1].
StageProgress = Callable[[str, float], None]

#: Before the first stage: the libraries are imported.
STARTING = "starting"
