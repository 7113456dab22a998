"""What the policy makes of the models of a sweep, those of an earlier run included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from modelaudit.errors import ModelFileError
from modelaudit.failure import Failure, failure_of, sha256_if_readable
from modelaudit.fleet.sweep_summary import SweptModel
from modelaudit.policy import Policy
from modelaudit.report import Report


@dataclass(frozen=True)
class Judge:
    """A policy, and the models that it is about.

    Attributes:
        sha256: model -> its digest by this process, where there are waivers. A report's own was
            made where the model ran.
    """

    policy: Policy
    sha256: Mapping[Path, str | None]

    @classmethod
    def of_models(cls, policy: Policy, models: Iterable[Path]) -> Judge:
        """The models are read where there are waivers."""
        known = models if policy.waivers else ()
        return cls(policy, {model: sha256_if_readable(model) for model in known})

    def judged(self, result: Report | Failure, model: Path) -> Report | Failure:
        """The result with what it leads to; a failure where another file was scanned."""
        if isinstance(result, Report):
            try:
                return self.policy.judged(result, self.sha256.get(model))
            except ModelFileError as error:
                result = failure_of(model, error)
        return self.policy.judged_failure(result)

    def judged_again(self, one: SweptModel, model: Path) -> SweptModel | None:
        """The entry of an earlier run with what it leads to now; ``None`` if of another file."""
        if self.sha256.get(model, one.sha256) != one.sha256:
            return None
        return replace(one, policy=self.policy.outcome(one.verdict, one.targets, one.sha256))
