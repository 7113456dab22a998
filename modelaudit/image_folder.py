"""Which files belong to which class: ``DIR/<class>/*.png``. Nothing here imports torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelaudit.errors import ImagesError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp"})
FolderMapping = Literal["numbers", "labels", "sorted names"]

_LAYOUT = "expected DIR/<class>/*.png (or jpg, jpeg, bmp, ppm, webp), one folder per class"


@dataclass(frozen=True)
class ClassFolder:
    """The images of one class.

    Attributes:
        index: the model's output that the folder stands for.
        folder: name of the folder.
        name: name of the class.
        files: image files sorted by name.
    """

    index: int
    folder: str
    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ImageFolder:
    """A directory of clean images, one folder per class.

    Attributes:
        directory: the directory.
        classes: the folders that are present, by class index.
        class_names: names of the outputs 0, 1, ... as far as they are known.
        mapping: how folders became class indices.
        warnings: sentences for the report.
    """

    directory: Path
    classes: tuple[ClassFolder, ...]
    class_names: tuple[str, ...]
    mapping: FolderMapping
    warnings: tuple[str, ...] = ()


def scan_folder(directory: Path, labels: tuple[str, ...] | None = None) -> ImageFolder:
    """Find the class folders of ``directory`` and the image files in them; nothing is decoded.

    A folder stands for an output by its name: listed in ``labels``, else a number (``3`` or
    ``03``: the output's index), else its place among the sorted names. A subset of the classes is
    enough with numbers or labels. Hidden entries are ignored; symbolic links are followed.

    Args:
        directory: holds one folder per class.
        labels: names of the outputs in output order, see ``read_labels``.

    Raises:
        ImagesError: not a directory, no class folders, a folder that cannot be mapped, two
            folders for one class, or a class folder without images.
    """
    directory = Path(directory)
    if not directory.is_dir():
        found = "it is a file" if directory.exists() else "it does not exist"
        raise ImagesError(f"{directory} is not a directory of clean images ({found}); {_LAYOUT}.")
    entries = [entry for entry in sorted(directory.iterdir()) if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if is_image(entry)]
    if not folders:
        found = f"{len(loose)} images without class folders" if loose else "no class folders"
        raise ImagesError(f"{directory} has {found}; {_LAYOUT}.")
    mapping, indices, names = _map_folders([folder.name for folder in folders], labels)
    _refuse_duplicates(directory, folders, indices)
    warnings = []
    if loose:
        warnings.append(
            f"{len(loose)} images lie in {directory} outside the class folders and are ignored."
        )
    classes = []
    for index, folder in sorted(zip(indices, folders, strict=True)):
        files, ignored = _image_files(folder)
        if ignored:
            warnings.append(f"{ignored} files in {folder} are not images by name and are ignored.")
        classes.append(ClassFolder(index, folder.name, class_name(names, index), files))
    return ImageFolder(directory, tuple(classes), names, mapping, tuple(warnings))


def class_name(names: tuple[str, ...], index: int) -> str:
    """Name of the output ``index``: its number where no name is known."""
    return names[index] if index < len(names) else str(index)


def _map_folders(
    folders: list[str], labels: tuple[str, ...] | None
) -> tuple[FolderMapping, list[int], tuple[str, ...]]:
    """How the folders were mapped, the class index of each, and the class names."""
    if labels is not None and all(name in labels for name in folders):
        repeated = [name for name in folders if labels.count(name) > 1]
        if repeated:
            raise ImagesError(
                f"The labels list the name {repeated[0]!r} for several outputs, so the folder of "
                "that name is ambiguous; name the class folders by output index instead."
            )
        return "labels", [labels.index(name) for name in folders], labels
    numbers = [name for name in folders if name.isdecimal() and name.isascii()]
    others = [name for name in folders if name not in numbers]
    if not others:
        indices = [int(name) for name in folders]
        return "numbers", indices, _names_of_numbers(indices, labels)
    if labels is not None:
        unknown = next(name for name in folders if name not in labels)
        close = difflib.get_close_matches(unknown, labels, n=3, cutoff=0.5)
        hint = f" (close: {', '.join(close)})" if close else ""
        raise ImagesError(
            f"The class folder {unknown!r} is not among the {len(labels)} labels{hint}. Name "
            "every folder by a label or every folder by its output index, or give --labels."
        )
    if numbers:
        raise ImagesError(
            f"The class folders mix numbers ({numbers[0]!r}) and names ({others[0]!r}). Name all "
            "of them by output index, or all of them by name and give the names with --labels."
        )
    return "sorted names", list(range(len(folders))), tuple(folders)


def _names_of_numbers(indices: list[int], labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if labels is None:
        return ()
    if max(indices) >= len(labels):
        raise ImagesError(
            f"There is a class folder {max(indices)}, but the labels name only the outputs "
            f"0 .. {len(labels) - 1}. Folder numbers start at 0."
        )
    return labels


def _refuse_duplicates(directory: Path, folders: list[Path], indices: list[int]) -> None:
    seen: dict[int, str] = {}
    for index, folder in zip(indices, folders, strict=True):
        if index in seen:
            raise ImagesError(
                f"{directory} has two folders for class {index}: {seen[index]!r} and "
                f"{folder.name!r}. Merge them or remove one."
            )
        seen[index] = folder.name


def _image_files(folder: Path) -> tuple[tuple[Path, ...], int]:
    """The image files of a class folder sorted by name, and how many other files it holds."""
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    files = sorted((entry for entry in visible if is_image(entry)), key=lambda file: file.name)
    if not files:
        raise ImagesError(
            f"The class folder {folder} holds no images; add some (png, jpg, jpeg, bmp, ppm, webp) "
            "or remove the folder."
        )
    return tuple(files), sum(entry.is_file() for entry in set(visible) - set(files))


def is_image(entry: Path) -> bool:
    """By suffix; a dangling link counts, so that it is reported as unreadable later."""
    dangling = entry.is_symlink() and not entry.exists()
    return entry.suffix.lower() in IMAGE_SUFFIXES and (entry.is_file() or dangling)
