"""Cohort of a public set: its files, unpacked, and one table of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from monai_mil_ext.data import check_cohort
from monai_mil_ext.utils import atomic_path, load_json, write_csv, write_json

from .archives import slide_labels, split_groups, unpack
from .hub import HubFile
from .sets import PublicSet

__all__ = ["PLACES", "camelyon16_slide", "camelyon17_slide", "place_file", "read_done", "write_cohort"]

TABLE, DONE = "cohort.csv", "done.json"
COLUMNS = ("case_id", "patient", "image", "label", "instance_label", "site", "split")
Facts = Mapping[str, str]
PER_CENTER = 20  # patients of CAMELYON17
TEST_CENTERS = ("3", "4")


def camelyon16_slide(name: str) -> Facts:
    """Return patient, site and part of a slide of CAMELYON16: the official test set by its name.

    Example:
        >>> camelyon16_slide("test_001")["split"], camelyon16_slide("tumor_001")["split"]
        ('test', 'train')
    """
    return {"patient": name, "site": "", "split": "test" if name.startswith("test") else "train"}


def camelyon17_slide(name: str) -> Facts:
    """Return patient, center and part of a slide of CAMELYON17: centers 3 and 4 are tested, as ACMIL and ASMIL do.

    Of the 100 patients with labels, each center has 20, in the order of their numbers.

    Raises:
        ValueError: when the name is not that of such a slide.

    Example:
        >>> camelyon17_slide("patient_067_node_4")
        {'patient': 'patient_067', 'site': '3', 'split': 'test'}
    """
    match = re.fullmatch(r"(patient_(\d{3}))_node_\d", name)
    if match is None or int(match[2]) >= 5 * PER_CENTER:
        raise ValueError(f"`name` must be a labeled slide such as 'patient_012_node_3', got {name!r}.")
    center = str(int(match[2]) // PER_CENTER)
    return {"patient": match[1], "site": center, "split": "test" if center in TEST_CENTERS else "train"}


PLACES: dict[str, Callable[[str], Facts]] = {
    "camelyon16_slide": camelyon16_slide,
    "camelyon17_slide": camelyon17_slide,
}


def read_done(folder: Path) -> dict[str, int]:
    """Return the files of the hub that are unpacked, with the number of bags in them."""
    return dict(load_json(folder / DONE)) if (folder / DONE).exists() else {}


def place_file(public_set: PublicSet, encoder: str, file: HubFile, source: Path, folder: Path) -> int:
    """Put a fetched file where the cohort expects it, remove the archive, and return the number of its bags.

    ``features_<encoder>.tar.gz`` becomes ``features/features_<encoder>/<bag>.npy``, ``labels.tar.gz`` becomes
    ``labels/<bag>.npy``; of an HDF5 file, each slide is a bag file in ``features/features_<encoder>``, and its label
    goes to ``labels_<encoder>.json``.
    """
    name = Path(file.name).name
    features = folder / "features" / f"features_{encoder}"
    if public_set.layout == "groups":
        write_json(folder / f"labels_{encoder}.json", slide_labels(source))
        count = split_groups(source, features, encoder)
    elif name.endswith(".tar.gz"):
        stem = name.removesuffix(".tar.gz")
        count = unpack(source, features if stem == features.name else folder / stem)
    else:
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(source.read_bytes())
        count = 0
    write_json(folder / DONE, {**read_done(folder), file.name: count})
    source.unlink()
    return count


def write_cohort(public_set: PublicSet, encoder: str, folder: Path) -> tuple[Path, list[str]]:
    """Write ``cohort.csv``, the table of all bags of one encoder, and return its path and notes.

    Its paths are relative to the folder, so that it serves any other command, too. ``split`` is that of the set; a
    study takes the validation part from the training part.

    Raises:
        ValueError: when bags can't be read, or have no label; all are listed.
    """
    features = folder / "features" / f"features_{encoder}"
    rows, notes = _groups(public_set, encoder, folder) if public_set.layout == "groups" else _torchmil(folder, features)
    table = folder / TABLE
    write_csv(table, rows, COLUMNS)
    return table, notes


def _torchmil(folder: Path, features: Path) -> tuple[list[dict[str, str]], list[str]]:
    report = check_cohort(folder / "splits.csv", root=features)
    lost = {issue.case for issue in report.errors if "must be the path or the name of a file" in issue.message}
    report.errors = [issue for issue in report.errors if issue.case not in lost]  # torchmil passes over them, too
    items = report.usable_items()
    notes = [issue.message for issue in report.notes]
    if lost:
        notes.append(f"{len(lost)} bags of splits.csv have no features, and are left out")
    return [_row(item, folder) for item in items], notes


def _row(item: Mapping[str, object], folder: Path) -> dict[str, str]:
    paths = {key: _relative(str(item[key]), folder) for key in ("image", "instance_label") if item.get(key)}
    return {**{key: str(item[key]) for key in ("case_id", "patient", "label", "split")}, **paths}


def _groups(public_set: PublicSet, encoder: str, folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    place = PLACES[public_set.site]
    labels = load_json(folder / f"labels_{encoder}.json")
    image = f"features/features_{encoder}"
    rows = [
        {"case_id": name, "image": f"{image}/{name}.h5", "label": str(label), **place(name)}
        for name, label in sorted(labels.items())
    ]
    return rows, []


def _relative(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder.resolve()).as_posix()
