"""Options of the commands that scan many models: where the scans run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from modelaudit.cli.groups import Running, Search
from modelaudit.cli.long import Budget
from modelaudit.errors import UsageError

if TYPE_CHECKING:
    from modelaudit.fleet.cluster import RayOptions

_ADDRESS = re.compile(r"auto|local|(ray://)?[\w.-]+:\d+|(ray://)?\[[0-9a-fA-F:]+\]:\d+")
_DEFAULT_ADDRESS = "auto"


@dataclass(frozen=True)
class Machines:
    """Processes on this machine, or a Ray cluster."""

    jobs: Annotated[int, typer.Option(help="Scans at the same time on this machine.", min=1)] = 1
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run on the Ray cluster at HOST:PORT; without an address on the one that "
            "RAY_ADDRESS names or that runs here, else on one started for the time of the scans.",
            metavar="[ADDRESS]",
        ),
    ] = None
    ray_cpus: Annotated[int, typer.Option(help="Cores of each scan on Ray.", min=1)] = 1
    ray_gpus: Annotated[
        float | None,
        typer.Option(
            help="GPUs of each scan on Ray, or a share of one; 1 by default where scans use GPUs."
        ),
    ] = None

    @property
    def ray_options(self) -> RayOptions | None:
        """How to run on Ray; ``None`` to run here.

        Raises:
            UsageError: options that contradict each other, or no address.
        """
        from modelaudit.fleet.cluster import RayOptions

        if self.ray is None:
            return None
        if self.jobs != 1:
            raise UsageError("--jobs and --ray exclude each other: the cluster says how many fit.")
        if not _ADDRESS.fullmatch(self.ray):
            raise UsageError(f"--ray {self.ray}: expected HOST:PORT, auto, local, or nothing.")
        return RayOptions(self.ray, self.ray_cpus, self.ray_gpus)


def fleet_options(
    search: Search, machines: Machines, budget: Budget, running: Running
) -> dict[str, Any]:
    """The fields of :class:`modelaudit.fleet.runner.FleetOptions`."""
    return {
        "detectors": search.detectors,
        "preset": search.preset,
        "settings": search.settings,
        "images_per_class": search.images_per_class,
        "alpha": search.alpha,
        "accuracy_floor": search.accuracy_floor,
        "device": search.device,
        "seed": search.seed,
        "time_budget": budget.seconds,
        "jobs": machines.jobs,
        "ray": machines.ray_options,
        "limits": running.limits,
    }


class FleetCommand(TyperCommand):
    """A command whose ``--ray`` needs no value, which typer itself does not offer."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_address(args))


def with_address(arguments: list[str]) -> list[str]:
    """The arguments with the default address after a ``--ray`` that no address follows."""
    given = []
    for one, following in zip(arguments, [*arguments[1:], ""], strict=False):
        bare = one == "--ray" and not _ADDRESS.fullmatch(following)
        given.append(f"{one}={_DEFAULT_ADDRESS}" if bare else one)
    return given
