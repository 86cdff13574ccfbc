"""Files of bags or slides below a folder, as TRIDENT, CLAM, STAMP, slideflow, torchmil and gdc-client leave them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath

from monai_mil_ext.utils.remote import ObjectPath, as_path

__all__ = ["FEATURE_SUFFIXES", "drop_links", "file_name", "list_files", "name_folders", "prefer_files"]

logger = logging.getLogger(__name__)

FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz", ".safetensors", ".zarr")
INDEX = ".index.npz"  # coordinates that slideflow writes beside a bag
RESULTS = "prediction.json"  # of a folder that inference of this package has written
RECORD = "model.json"  # of a folder that training of this package has written
WEIGHTS = (".pt", ".pth")
# folders of files that belong to a bag or slide of the same name, and are none
SIDE_FOLDERS = {
    "adj",
    "annotations",
    "contours",
    "contours_geojson",
    "coords",
    "inst_labels",
    "labels",
    "logs",
    "masks",
}
SIDE_FOLDERS |= {"patch_labels", "patches", "qc", "segmentations", "slice_labels", "stitches", "thumbnails"}
SIDE_FOLDERS |= {"visualization"}
# names of folders that tools choose, so that they name no patient
TOOL_FOLDER = re.compile(
    r"(slide_)?feat(ure)?s([_-].*)?|h5_files|pt_files|bags|slides|wsis?|\d+(\.\d+)?x_.*", re.IGNORECASE
)


def list_files(folder: Path, suffixes: Sequence[str] = FEATURE_SUFFIXES) -> list[Path]:
    """Return the sorted paths of all files and zarr stores below a folder that are bags or slides.

    Links to folders are followed. Left out are hidden files and folders, the indices of slideflow, results and weights
    of this package, ``pt_files`` of CLAM where ``h5_files`` has the same bag, and files in folders such as
    ``patches``, ``coords`` or ``thumbnails`` if there are files elsewhere.

    Args:
        folder: the folder.
        suffixes: suffixes in lower case.

    Example:
        >>> for name in ("20x/features_uni_v1/a.h5", "20x/patches/a_patches.h5", "bags/b.pt", "bags/b.index.npz"):
        ...     Path("job", name).parent.mkdir(parents=True, exist_ok=True)
        ...     Path("job", name).touch()
        >>> [file.name for file in list_files(Path("job"))]
        ['a.h5', 'b.pt']
    """
    kinds = tuple(suffixes)
    found = [*(_walk_objects(folder, kinds) if isinstance(folder, ObjectPath) else _walk(folder, kinds, set()))]
    kept = [path for path, is_beside in found if not is_beside] or [path for path, _ in found]
    known = set(kept)
    files = [path for path in kept if not _has_h5(path, known)]
    if len(files) < len(kept):
        logger.info("%d files of pt_files are left out: h5_files has them with coordinates", len(kept) - len(files))
    return [as_path(path) for path in sorted(files, key=lambda path: path.split(os.sep))]  # the order of paths


def file_name(path: str) -> str:
    r"""Return the name of a file from a path in the form of this system, or in that of Windows.

    Example:
        >>> file_name("D:\\slides\\a.svs"), file_name("slides/a.svs")
        ('a.svs', 'a.svs')
    """
    return PureWindowsPath(path).name if "\\" in path else Path(path).name


def _walk(
    folder: str | Path, suffixes: tuple[str, ...], seen: set[str], is_beside: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yield the path of each file, as text since a store has many, and whether a folder of it is one of side files."""
    place = os.path.realpath(folder)
    if place in seen or not suffixes:
        return
    seen.add(place)
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:  # a folder that may not be read
        return
    kinds = _kinds({entry.name for entry in entries}, suffixes)
    for entry in entries:
        name = entry.name.lower()
        if not name.endswith(".zarr") and _is_folder(entry):  # a zarr store is a bag, not a folder of bags
            yield from _walk(entry.path, suffixes if kinds else (), seen, is_beside or name in SIDE_FOLDERS)
        elif name.endswith(kinds) and not name.endswith(INDEX):
            yield os.path.normpath(entry.path), is_beside


def _walk_objects(folder: ObjectPath, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield the files and zarr stores below an address by the rules of `_walk`, from one listing of all objects."""
    names: dict[Path, set[str]] = {}
    for path in folder.sizes():
        parts = path.relative_to(folder).parts
        depth = next((i for i, part in enumerate(parts) if part.lower().endswith(".zarr")), len(parts) - 1)
        if not any(part.startswith(".") for part in parts[: depth + 1]):
            names.setdefault(folder.joinpath(*parts[:depth]), set()).add(parts[depth])
    for place, found in names.items():
        above = [parent for parent in (place, *place.parents) if parent.is_relative_to(folder)]
        if all(_kinds(names.get(parent, set()), suffixes) for parent in above):
            kinds = _kinds(found, suffixes)
            is_beside = bool(SIDE_FOLDERS & {part.lower() for part in place.relative_to(folder).parts})
            kept = [name for name in found if name.lower().endswith(kinds) and not name.lower().endswith(INDEX)]
            yield from ((str(place / name), is_beside) for name in kept)


def _kinds(names: set[str], suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the suffixes of the bags or slides of a folder that has ``names``, as far as this package wrote none."""
    if RESULTS in names:
        return ()
    return tuple(suffix for suffix in suffixes if suffix not in WEIGHTS) if RECORD in names else suffixes


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _has_h5(path: str, known: set[str]) -> bool:
    """Return whether a file of CLAM's ``pt_files`` is one of ``h5_files`` too, which has its coordinates."""
    if f"{os.sep}pt_files{os.sep}" not in f"{os.sep}{path}":
        return False
    file = as_path(path)
    return file.parent.name == "pt_files" and str(file.parent.parent / "h5_files" / f"{file.stem}.h5") in known


def drop_links(files: Sequence[Path]) -> list[Path]:
    """Return the files without links to another of them that has the same name.

    Example:
        >>> Path("a.svs").touch()
        >>> Path("links").mkdir()
        >>> Path("links/a.svs").symlink_to("../a.svs")
        >>> [str(file) for file in drop_links([Path("a.svs"), Path("links/a.svs")])]
        ['a.svs']
    """
    first: dict[tuple[str, str], Path] = {}
    for file in sorted(files, key=lambda file: file.is_symlink()):
        first.setdefault((file.name, os.path.realpath(file)), file)
    kept = set(first.values())
    return [file for file in files if file in kept]


def prefer_files(files: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """Return the files without those that have a file of the same name with one of ``suffixes`` beside them.

    Example:
        >>> [file.name for file in prefer_files([Path("a.svs"), Path("features/a.h5"), Path("b.h5")], [".svs"])]
        ['a.svs', 'b.h5']
    """
    preferred = {file.stem for file in files if file.suffix.lower() in suffixes}
    return [file for file in files if file.suffix.lower() in suffixes or file.stem not in preferred]


def name_folders(files: Iterable[Path]) -> str:
    """Name the folders of files for a message, as far as a tool and not a user has chosen their names.

    Example:
        >>> name_folders([Path("20x/features_uni_v1/a.h5"), Path("20x/features_gigapath/a.h5"), Path("DOE_JOHN/a.h5")])
        "'features_gigapath', 'features_uni_v1' and 1 other folder"
    """
    folders = {file.parent for file in files}
    named = sorted({_tool_name(folder, folders) for folder in folders if TOOL_FOLDER.fullmatch(folder.name)})
    others = sum(not TOOL_FOLDER.fullmatch(folder.name) for folder in folders)
    rest = f"{others} other folder{'s' * (others > 1)}" if named else f"{others} folder{'s' * (others > 1)}"
    return " and ".join([", ".join(map(repr, named))] * bool(named) + [rest] * bool(others))


def _tool_name(folder: Path, folders: Iterable[Path]) -> str:
    """Return the name of a folder, after that of its own folder if a tool has named both and others share the name."""
    is_shared = any(other.name == folder.name for other in folders if other != folder)
    return "/".join(folder.parts[-2:]) if is_shared and TOOL_FOLDER.fullmatch(folder.parent.name) else folder.name
