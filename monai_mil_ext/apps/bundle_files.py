"""Bundles that are installed with the package."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from monai_mil_ext.utils import check_choice, check_local, load_json

__all__ = ["copy_bundle", "list_bundles"]

CLONE = Path(__file__).parents[2] / "bundles"
FOLDER = "share/monai_mil_ext/bundles"  # of an installation; ``pip install --target`` has it beside the package
FILES = ("LICENSE", "large_files.yml", "configs/*.*", "docs/*.*", "scripts/**/*.py", "scripts/**/*.txt")
# weights that come with a bundle; others, in subfolders of models, are of a user's own training
WEIGHTS = ("models/model.json", "models/model.pt", "models/split.json")
OWN_WEIGHTS = ("instance_encoder",)  # fetched by the user, by large_files.yml


def list_bundles() -> dict[str, str]:
    """Return the purpose of each bundle by its name.

    Raises:
        FileNotFoundError: when the package was installed without its bundles.

    Example:
        >>> sorted(list_bundles())
        ['bag_classifier', 'instance_encoder', 'scan_mil', 'wsi_mil']
    """
    return {name: load_json(folder / "configs/metadata.json")["task"] for name, folder in _find_bundles().items()}


def copy_bundle(name: str, folder: str | os.PathLike[str]) -> Path:
    """Copy a bundle into a folder, as a new folder with its name, and return the path of that.

    Args:
        name: name of the bundle.
        folder: folder in which to make the new folder; it is made if it does not exist.

    Raises:
        FileExistsError: when there is something of that name.
        FileNotFoundError: when the package was installed without its bundles.
        ValueError: when there is no such bundle, or ``folder`` is an address.

    Example:
        >>> copy_bundle("scan_mil", "work").as_posix()
        'work/scan_mil'
    """
    check_local(folder=folder)
    bundles = _find_bundles()
    check_choice("name", name, bundles)
    target = Path(folder) / name
    if os.path.lexists(target):
        raise FileExistsError(f"`folder` must be without {name!r}, which would be overwritten.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for file in _files(bundles[name]):
        copy = partial / file.relative_to(bundles[name])
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    partial.rename(target)
    return target


def _find_bundles() -> dict[str, Path]:
    """Return the folders of the bundles, of a clone or of an installation, by their names."""
    folders = _in(CLONE) or _in(CLONE.parent / FOLDER) or _installed()
    if not folders:
        raise FileNotFoundError("`monai_mil_ext` must be installed with its bundles, got an installation without.")
    return {folder.name: folder for folder in folders}


def _in(folder: Path) -> list[Path]:
    return sorted(path.parents[1] for path in folder.glob("*/configs/metadata.json"))


def _installed() -> list[Path]:
    try:
        files = distribution("monai-mil-ext").files or []
    except PackageNotFoundError:
        return []
    found = [file for file in files if FOLDER in file.as_posix() and file.name == "metadata.json"]
    places = [Path(str(file.locate())).resolve() for file in found]
    return sorted(place.parents[1] for place in places if place.is_file())


def _files(bundle: Path) -> list[Path]:
    patterns = FILES if bundle.name in OWN_WEIGHTS else (*FILES, *WEIGHTS)
    return sorted(path for pattern in patterns for path in bundle.glob(pattern) if path.is_file())
