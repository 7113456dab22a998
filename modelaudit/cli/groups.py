"""Options that several commands share, declared once.

A command takes a group as one parameter, ``subject: Subject``; :func:`expanded` puts the options of
the group in its place, which is what typer sees.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from modelaudit.cli.options import (
    AlphaOption,
    ArchOption,
    ChannelOrderOption,
    CleanDirOption,
    DetectorOption,
    DeviceOption,
    FastOption,
    FloorOption,
    ImageSizeOption,
    ImagesPerClassOption,
    InputRangeOption,
    IsolationOption,
    LabelsOption,
    LayoutOption,
    LimitOption,
    MeanOption,
    ModelArgument,
    NumClassesOption,
    PreprocessOption,
    QuietOption,
    SeedOption,
    SetOption,
    StdOption,
    ThoroughOption,
    limits_of,
    parse_settings,
    parse_size,
    preset_of,
)

if TYPE_CHECKING:
    from modelaudit.isolation.limits import Limits
    from modelaudit.options import Preset, ScanOptions

#: Where values come from, the weakest first; names of click's ``ParameterSource``.
_SOURCES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "PROMPT", "COMMANDLINE")
#: Options that exclude each other. One from a stronger place puts the others' weaker ones aside, so
#: that ``--fast`` can be given where a configuration file names detectors.
EXCLUSIVE = (
    ("detector", "fast", "thorough"),
    ("limit", "isolation"),
    ("fail_on", "exit_zero"),
    ("jobs", "ray"),
    *(("preprocess", key) for key in ("mean", "std", "input_range", "channel_order")),
)


@dataclass(frozen=True)
class Subject:
    """The model, and what is said about it."""

    model: ModelArgument
    clean_dir: CleanDirOption
    labels: LabelsOption = None
    arch: ArchOption = None
    num_classes: NumClassesOption = None
    preprocess: PreprocessOption = "auto"
    mean: MeanOption = None
    std: StdOption = None
    input_range: InputRangeOption = None
    layout: LayoutOption = None
    channel_order: ChannelOrderOption = None
    image_size: ImageSizeOption = None


@dataclass(frozen=True)
class Search:
    """What is looked for, and how."""

    images_per_class: ImagesPerClassOption = 8
    detector: DetectorOption = None
    fast: FastOption = False
    thorough: ThoroughOption = False
    set_: SetOption = None
    alpha: AlphaOption = 0.05
    accuracy_floor: FloorOption = 0.5
    device: DeviceOption = "auto"
    seed: SeedOption = 0

    @property
    def detectors(self) -> tuple[str, ...]:
        return tuple(self.detector or ())

    @property
    def preset(self) -> Preset:
        return preset_of(self.detector, self.fast, self.thorough)

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        return parse_settings(self.set_ or [])


@dataclass(frozen=True)
class Running:
    """The process that opens and runs the model, and what is shown meanwhile."""

    limit: LimitOption = None
    isolation: IsolationOption = True
    quiet: QuietOption = False

    @property
    def limits(self) -> Limits | None:
        return limits_of(self.limit, self.isolation)


def scan_options(subject: Subject, search: Search, **more: Any) -> ScanOptions:
    """The options of a scan.

    Args:
        more: other fields of :class:`modelaudit.options.ScanOptions`.
    """
    from modelaudit.options import ScanOptions
    from modelaudit.preprocess_options import PreprocessOptions

    return ScanOptions(
        model=subject.model,
        clean_dir=subject.clean_dir,
        labels=subject.labels,
        arch=subject.arch,
        num_classes=subject.num_classes,
        preprocessing=PreprocessOptions.parse(
            subject.preprocess,
            subject.mean,
            subject.std,
            subject.input_range,
            subject.layout,
            subject.channel_order,
        ),
        image_size=parse_size(subject.image_size),
        images_per_class=search.images_per_class,
        detectors=search.detectors,
        preset=search.preset,
        settings=search.settings,
        alpha=search.alpha,
        accuracy_floor=search.accuracy_floor,
        device=search.device,
        seed=search.seed,
        **more,
    )


def expanded(command: Callable[..., int]) -> Callable[..., int]:
    """The command with the options of its groups in the place of each group."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    wants_context = any(one.name == "context" for one in own)
    groups: dict[str, Any] = {o.name: o.annotation for o in own if is_dataclass(o.annotation)}
    parameters = [p for one in own for p in _parameters(one) if p.name != "context"]

    @functools.wraps(command)
    def called(context: typer.Context, **values: Any) -> int:
        values = _without_weaker(context, values, parameters)
        if wants_context:
            values["context"] = context
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    first = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    signature = inspect.Signature([first, *parameters])
    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return called


def _parameters(one: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The parameter itself, or those that its group stands for."""
    if not is_dataclass(one.annotation):
        yield one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(one.annotation, include_extras=True)
    for field in fields(one.annotation):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[field.name],
        )


def _without_weaker(
    context: typer.Context, values: Mapping[str, Any], parameters: Sequence[inspect.Parameter]
) -> dict[str, Any]:
    """The values without those that an exclusive option from a stronger place puts aside."""
    kept, defaults = dict(values), {one.name: one.default for one in parameters}
    for group in EXCLUSIVE:
        ranks = {name: _rank(context, name) for name in group if name in kept}
        # Giving a default counts (``--jobs 1``), but not that of a switch: it asks for nothing.
        given = [
            name
            for name, rank in ranks.items()
            if kept[name] != defaults[name] or (rank and not isinstance(defaults[name], bool))
        ]
        for name in given:
            if ranks[name] < max(ranks[one] for one in given):
                kept[name] = defaults[name]
    return kept


def _rank(context: typer.Context, name: str) -> int:
    source = context.get_parameter_source(name)
    return _SOURCES.index(source.name) if source else 0
