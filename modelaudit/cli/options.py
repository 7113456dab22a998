"""What several commands take: options, and how their texts become values.

Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelaudit.errors import UsageError

if TYPE_CHECKING:
    from modelaudit.isolation.limits import Limits
    from modelaudit.options import Preset

ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="ONNX, TorchScript, .pt2, safetensors, PyTorch state dict or a Hugging Face folder.",
        metavar="MODEL",
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        help="For weights without a graph: a torchvision model, or package.module:factory of your "
        "own code, which is then run."
    ),
]
NumClassesOption = Annotated[
    int | None, typer.Option(help="Number of outputs, for weights without a graph.", min=2)
]
DetectorOption = Annotated[
    list[str] | None,
    typer.Option(help="Detector to run; repeatable. See `modelaudit detectors`."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="DETECTOR.KEY=VALUE", help="A setting of a detector; repeatable."
    ),
]
FastOption = Annotated[bool, typer.Option("--fast", help="Only l-red and mm-bd, for a first look.")]
ThoroughOption = Annotated[bool, typer.Option("--thorough", help="Every built-in detector.")]
ImagesPerClassOption = Annotated[
    int, typer.Option(help="Clean images per class; fewer is possible, more sees more.", min=1)
]
AlphaOption = Annotated[
    float, typer.Option(help="Largest acceptable probability of refusing a clean model.")
]
FloorOption = Annotated[
    float,
    typer.Option(
        help="Accuracy on the clean images below which the verdict is inconclusive.", min=0, max=1
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Limit of the process that runs the model: memory=8G, cpu-time=2h, stall=15m, "
        "open-files=512, file-size=64M; repeatable.",
    ),
]
IsolationOption = Annotated[
    bool,
    typer.Option(
        "--isolation/--no-isolation",
        help="Run the model in a process of its own with limits and without network. Without, "
        "it runs in this process, for debuggers.",
    ),
]
ExamineOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A published check beside the verdict, or all; repeatable. See `modelaudit "
        "detectors`.",
        metavar="NAME",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, and one line instead of the text report."),
]
CleanDirOption = Annotated[
    Path,
    typer.Option(help="Folder with one folder of clean images per class.", metavar="DIR"),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        help="Class names in output order: one per line, or JSON id2label.", metavar="FILE"
    ),
]
PreprocessOption = Annotated[
    str,
    typer.Option(
        help="auto tries the usual ones and keeps what classifies best; or a name: as-is, "
        "imagenet, cifar10, half, 0-255, bgr, ..."
    ),
]
MeanOption = Annotated[
    str | None, typer.Option(help="Channel means in [0, 1] units, e.g. 0.485,0.456,0.406.")
]
StdOption = Annotated[str | None, typer.Option(help="Channel standard deviations in [0, 1] units.")]
InputRangeOption = Annotated[
    str | None, typer.Option(help="Range of the model's input: 0-1 or 0-255.")
]
LayoutOption = Annotated[
    str | None, typer.Option(help="Layout of the model's input: NCHW or NHWC.")
]
ChannelOrderOption = Annotated[
    str | None, typer.Option(help="Order of the model's colour channels: RGB or BGR.")
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(help="Input size where the model does not state it: N or HxW.", metavar="SIZE"),
]


def parse_settings(texts: list[str]) -> dict[str, dict[str, str]]:
    """``DETECTOR.KEY=VALUE`` texts as detector -> key -> value.

    Raises:
        UsageError: a text of another form.
    """
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        detector, dot, key = left.strip().partition(".")
        if not (equals and dot and detector and key):
            raise UsageError(
                f"--set {text}: expected DETECTOR.KEY=VALUE, e.g. l-red.schedule=paper."
            )
        settings.setdefault(detector, {})[key] = value.strip()
    return settings


def preset_of(detectors: list[str] | None, fast: bool, thorough: bool) -> Preset:
    """Which set of detectors; they exclude each other and a choice by name."""
    given = {"--detector": bool(detectors), "--fast": fast, "--thorough": thorough}
    chosen = [name for name, on in given.items() if on]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other; give one of them.")
    return "fast" if fast else "thorough" if thorough else "default"


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``32`` or ``32x48`` (height x width) in pixels."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 8192 for part in parts):
        raise UsageError(f"--image-size {text}: expected N or HxW in pixels, e.g. 224 or 32x48.")
    height, width = int(parts[0]), int(parts[-1])
    return height, width


def check_format(given: str, known: Collection[str]) -> None:
    """Raise UsageError for a ``--format`` that is not known."""
    if given not in known:
        raise UsageError(f"--format {given}: expected one of {', '.join(known)}.")


def check_writable(path: Path) -> None:
    """Raise UsageError for an output file that cannot be written; nothing is created."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--output {path}: there is no folder {folder}.")
    if path.is_dir():
        raise UsageError(f"--output {path}: this is a folder; give a file name.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--output {path}: no permission to write there.")


def limits_of(texts: list[str] | None, isolation: bool) -> Limits | None:
    """The limits of the worker process; ``None`` without one."""
    from modelaudit.isolation.limits import Limits

    if texts and not isolation:
        raise UsageError("--limit needs the process of its own that --no-isolation switches off.")
    return Limits.parse(texts or []) if isolation else None
