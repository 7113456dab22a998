"""``modelaudit screen``: which of these inputs carry a trigger?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelaudit.cli_options import (
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
    check_writable,
    limits_of,
    parse_settings,
    parse_size,
    preset_of,
)
from modelaudit.errors import UsageError


def screen(
    model: ModelArgument,
    clean_dir: CleanDirOption,
    inputs: Annotated[
        Path, typer.Option(help="Folder with the images to judge, nested or not.", metavar="DIR")
    ],
    labels: LabelsOption = None,
    arch: ArchOption = None,
    num_classes: NumClassesOption = None,
    preprocess: PreprocessOption = "auto",
    mean: MeanOption = None,
    std: StdOption = None,
    input_range: InputRangeOption = None,
    layout: LayoutOption = None,
    channel_order: ChannelOrderOption = None,
    image_size: ImageSizeOption = None,
    images_per_class: ImagesPerClassOption = 8,
    detector: DetectorOption = None,
    fast: FastOption = False,
    thorough: ThoroughOption = False,
    set_: SetOption = None,
    alpha: AlphaOption = 0.05,
    accuracy_floor: FloorOption = 0.5,
    false_rejection_rate: Annotated[
        float, typer.Option(help="Share of clean inputs that may be flagged.")
    ] = 0.05,
    superpositions: Annotated[
        int, typer.Option(help="Images laid over each input (STRIP).", min=1)
    ] = 100,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    format_: Annotated[
        str, typer.Option("--format", help="Report on stdout: text or json.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option(help="Also write the JSON report to a file.", metavar="FILE")
    ] = None,
    limit: LimitOption = None,
    isolation: IsolationOption = True,
    quiet: QuietOption = False,
) -> int:
    """Say which inputs carry a trigger; the model is scanned first.

    Exit codes: 0 none flagged, 1 some flagged, 2 error.
    """
    if format_ not in ("text", "json"):
        raise UsageError(f"--format {format_}: expected one of text, json.")
    if output is not None:
        if output.suffix != ".json":
            raise UsageError(f"--output {output}: the screening report is JSON; expected *.json.")
        check_writable(output)
    from modelaudit.options import ScanOptions
    from modelaudit.preprocess_options import PreprocessOptions
    from modelaudit.progress import stage_progress
    from modelaudit.run import run_screen
    from modelaudit.screen_options import ScreenOptions

    scan = ScanOptions(
        model=model,
        clean_dir=clean_dir,
        labels=labels,
        arch=arch,
        num_classes=num_classes,
        preprocessing=PreprocessOptions.parse(
            preprocess, mean, std, input_range, layout, channel_order
        ),
        image_size=parse_size(image_size),
        images_per_class=images_per_class,
        detectors=tuple(detector or ()),
        preset=preset_of(detector, fast, thorough),
        settings=parse_settings(set_ or []),
        alpha=alpha,
        accuracy_floor=accuracy_floor,
        device=device,
        seed=seed,
    )
    options = ScreenOptions(scan, inputs, false_rejection_rate, superpositions)
    with stage_progress(quiet) as progress:
        report = run_screen(options, limits_of(limit, isolation), progress)
    from modelaudit.formats.screen_text import FORMATS, screen_json, screen_line

    if format_ == "text" and quiet:
        print(screen_line(report))
    else:
        print(FORMATS[format_](report), end="", flush=True)
    if output is not None:
        _write(screen_json(report), output)
    return 1 if report.flagged else 0


def _write(text: str, path: Path) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"--output {path}: {error.strerror or error}.") from error
