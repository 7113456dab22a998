"""Whether weights fit a network: names and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from torch import Tensor

from modelaudit.errors import ModelFileError

# What wrappers put before the names: DataParallel, Lightning and many scripts, torch.compile.
WRAPPERS = ("module.", "model.", "_orig_mod.")
_LISTED = 2


@dataclass(frozen=True)
class Mismatch:
    """Where weights and a network differ.

    Attributes:
        missing: tensors of the network that the file lacks.
        unexpected: tensors of the file that the network lacks.
        shapes: a sentence for each of another shape.
        expected: number of tensors of the network.
    """

    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    shapes: Sequence[str] = ()
    expected: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def lines(self) -> list[str]:
        """At most 7 lines, with the first of each kind."""
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("shape", self.shapes))
        lines = [f"{title}: {item}" for title, items in parts for item in items[:_LISTED]]
        rest = sum(len(items) for _, items in parts) - len(lines)
        return [*lines, f"... {rest} more of {self.expected} expected tensors"] if rest else lines

    def require_none(self, claim: str, advice: str = "") -> None:
        """Raise ``ModelFileError`` with ``claim``, the lines and ``advice`` unless it all fits."""
        if self:
            text = "\n  ".join([f"{claim}:", *self.lines()])
            raise ModelFileError(f"{text}\n{advice}" if advice else text)


def fit(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Mismatch:
    """Compare a network's state dict with weights."""
    return Mismatch(
        missing=[k for k in wanted if k not in weights and not is_counter(k)],
        unexpected=[k for k in weights if k not in wanted and not is_counter(k)],
        shapes=[
            f"{k}: {list(weights[k].shape)} in the file, {list(wanted[k].shape)} expected"
            for k in wanted
            if k in weights and weights[k].shape != wanted[k].shape
        ],
        expected=len(wanted),
    )


def is_counter(key: str) -> bool:
    """BatchNorm's counters: older files lack them, and they do not matter in eval mode."""
    return key.endswith("num_batches_tracked")


def strip_prefixes(
    weights: Mapping[str, Tensor], wanted: Set[str], wrappers: Sequence[str] = WRAPPERS
) -> dict[str, Tensor]:
    """Without what wrappers put before the names and so keeps them from matching ``wanted``.

    Removed, as often as it brings more matches: the known prefixes from the names that have them,
    and any first part that all names share (``backbone.``, ``net.``).
    """
    return max(unwrapped(weights, wrappers), key=lambda stage: len(wanted & stage.keys()))


def unwrapped(
    weights: Mapping[str, Tensor], wrappers: Sequence[str] = WRAPPERS
) -> list[dict[str, Tensor]]:
    """The weights as they are, and with one, two ... prefixes removed."""
    stages = [dict(weights)]
    while stages[-1]:
        keys = stages[-1]
        shared = {key.partition(".")[0] + "." for key in keys if "." in key}
        common = shared.pop() if len(shared) == 1 and all("." in key for key in keys) else None
        prefix = common or next((p for p in wrappers if any(k.startswith(p) for k in keys)), None)
        shorter = {key.removeprefix(prefix or ""): value for key, value in keys.items()}
        if prefix is None or len(shorter) < len(keys):
            break
        stages.append(shorter)
    # torch.compile of a part of the network puts its name in the middle.
    if any("._orig_mod." in key for key in stages[-1]):
        stages += [{k.replace("._orig_mod.", "."): v for k, v in s.items()} for s in stages]
    return stages
