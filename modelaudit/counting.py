"""A share of some cases, with what is known of the true share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scipy import special


@dataclass(frozen=True)
class Count:
    """``hits`` of ``total`` with its exact 95 % confidence interval."""

    hits: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval of the share, 95 %."""
        low = special.betaincinv(self.hits, self.total - self.hits + 1, 0.025) if self.hits else 0.0
        all_hit = self.hits == self.total
        high = 1.0 if all_hit else special.betaincinv(self.hits + 1, self.total - self.hits, 0.975)
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        return {"hits": self.hits, "total": self.total, "interval": list(self.interval)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits}/{self.total}  [{low:.0%}, {high:.0%}]"
