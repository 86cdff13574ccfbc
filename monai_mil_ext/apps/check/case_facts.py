"""Facts that the headers of a case's files state."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from monai_mil_ext.data import CohortChecks, SlideFile
from monai_mil_ext.data.bags.bag_file import OpenBag, open_bag
from monai_mil_ext.data.cohorts.case_lists import is_feature_file
from monai_mil_ext.data.features.bad_cases import is_system_error
from monai_mil_ext.data.features.identities import item_identity
from monai_mil_ext.data.scans import read_scan_header
from monai_mil_ext.transforms.scans.load_scan import check_hounsfield
from monai_mil_ext.transforms.slides.slide_features import slide_magnification, slide_resolution
from monai_mil_ext.utils import BagKeys, InputError
from monai_mil_ext.utils.privacy import describe_case_error

from .check_settings import CheckedCase, CheckSettings

__all__ = ["read_facts"]

SERIES, STACK = str(BagKeys.SERIES), str(BagKeys.STACK)
MAX_THREADS = 8
ROWS = 64  # of the features that are read for their range
AIR = -200.0  # HU; a sample with lower values is one of a CT, however little they differ
SHARED = ("kind", "container", "shape", "spacing", "plane", "modality", "encoder", "width", "mpp", "magnification")


def read_facts(cases: Sequence[CheckedCase], settings: CheckSettings, finite: Collection[str] | None = None) -> None:
    """Read the headers of all cases in threads, and add facts, problems and notes to them.

    A file that can't be read is a problem of its case.

    Args:
        cases: the cases.
        settings: settings of the check.
        finite: identities of the items whose features are known to be finite; those of the others are all read. With
            None, a sample of each file is read.
    """
    workers = min(MAX_THREADS, 2 * (os.cpu_count() or 1), max(len(cases), 1))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda case: _read_case(case, settings, finite), cases))
    _check_widths(cases)


def _read_case(case: CheckedCase, settings: CheckSettings, finite: Collection[str] | None) -> None:
    """Add what the files of a case state."""
    found = []
    for path in case.paths:
        try:
            found.append(_read_file(path, case, settings, finite))
        except Exception as error:  # a damaged file can raise almost any error in the libraries that read it
            if isinstance(error, (ImportError, MemoryError)) or (isinstance(error, OSError) and is_system_error(error)):
                raise
            facts = getattr(error, "facts", {})
            found.append({key: facts[key] for key in ("container", "shape", "spacing") if facts.get(key)})
            case.add(describe_case_error(error, case.item), getattr(error, "option", ""))
    case.facts = _merged(found)


def _read_file(path: str, case: CheckedCase, settings: CheckSettings, finite: Collection[str] | None) -> dict[str, Any]:
    if is_feature_file(path) or settings.kind == "bags":
        return _bag_facts(path, case, finite)
    return _slide_facts(path, case, settings) if settings.kind == "slides" else _scan_facts(path, case, settings)


def _scan_facts(path: str, case: CheckedCase, settings: CheckSettings) -> dict[str, Any]:
    header = read_scan_header(path, case.item.get(SERIES), case.item.get(STACK), settings.irregular)
    case.notes += [note.removesuffix(".") for note in header.notes]
    low, high = header.sample or (None, None)
    if settings.hounsfield:
        _check_values(case, header.modality, low, high)
    return {
        "kind": "scan",
        "container": header.container,
        "shape": header.shape,
        "spacing": tuple(round(size, 4) for size in header.spacing),
        "plane": header.plane,
        "modality": header.modality or None,
        "instances": header.num_slices(settings.plane),
        "lowest": low,
        "highest": high,
    }


def _check_values(case: CheckedCase, modality: str, low: float | None, high: float | None) -> None:
    """Add the problem of a scan that is no CT, as far as a sample of its voxels shows."""
    sampled = low is not None and high is not None and low < high
    if not sampled and not modality:
        case.notes.append("whether its values are those of a CT is not known from its header")
    known = sampled and low is not None and low > AIR
    if known or modality not in ("", "CT"):
        try:
            check_hounsfield(modality or "CT", low or 0.0, high or 0.0)
        except InputError as error:
            case.add(str(error), error.option)


def _slide_facts(path: str, case: CheckedCase, settings: CheckSettings) -> dict[str, Any]:
    cut = None if settings.tiles is None else settings.tiles.to_tiles
    mpp, power = slide_resolution(case.item), slide_magnification(case.item)
    if cut is not None:
        mpp, power = mpp or cut.slide_mpp, power or cut.magnification
    with SlideFile(path, "openslide" if cut is None else cut.reader, mpp, power) as slide:
        case.notes += [note.removesuffix(".") for note in slide.notes]
        facts = {
            "kind": "slide",
            "container": slide.container,
            "shape": slide.size,
            "mpp": None if slide.mpp is None else round(slide.mpp, 4),
            "magnification": slide.magnification,
            "levels": len(slide.downsamples),
            "coarsest": max(slide.level_size(len(slide.downsamples) - 1)),
        }
        if cut is not None:
            try:
                facts["tiles"] = len(cut.grid.corners(slide))
            except ValueError as error:
                case.add(describe_case_error(error, case.item), getattr(error, "option", ""))
    return facts


def _bag_facts(path: str, case: CheckedCase, finite: Collection[str] | None) -> dict[str, Any]:
    is_read = finite is not None and not (finite and item_identity(case.item) in finite)
    summary = CohortChecks(features=is_read).inspect(path)
    facts: dict[str, Any] = {
        "kind": "bag",
        "instances": summary.num_instances,
        "width": summary.in_features or None,
        "encoder": summary.encoder,
        "mpp": summary.mpp,
        "magnification": summary.magnification,
        "summary": summary,
    }
    if summary.problem:
        case.add(describe_case_error(ValueError(summary.problem), case.item))
        return {**facts, "summary": None}
    with open_bag(path) as bag:
        facts["container"] = bag.info().format
        stated = bag.read(["modality"], [], allow_missing_keys=True).get("modality")
        facts["modality"] = str(stated) if stated else None
        return facts if finite is not None else {**facts, **_sampled_range(bag, case)}


def _sampled_range(bag: OpenBag, case: CheckedCase) -> dict[str, float]:
    """Return the range of a sample of the features; NaN and infinity are a problem of the case, one value a note."""
    rows = torch.linspace(0, len(bag) - 1, min(ROWS, len(bag))).long().unique()
    sample = bag.read(["features"], rows)["features"].float()
    finite = sample[sample.isfinite()]
    if len(finite) < sample.numel():
        case.add(f"features must be finite, got NaN or infinite values in a sample of {len(sample)} rows")
    if not len(finite):
        return {}
    lowest, highest = float(finite.min()), float(finite.max())
    if lowest == highest and finite.numel() > 1:
        case.notes.append(f"all features are {lowest:g} in a sample of {len(sample)} rows, as if their encoding failed")
    return {"lowest": lowest, "highest": highest}


def _check_widths(cases: Sequence[CheckedCase]) -> None:
    """Add a problem to each case whose features have another width than those of most."""
    widths = Counter(case.facts["width"] for case in cases if case.facts.get("width"))
    if len(widths) < 2:
        return
    (width, count), (_, second) = widths.most_common(2)
    rule = f"features must have {width} columns as in {count} cases"
    if count == second:
        rule = f"features must have one width, and {' and '.join(map(str, sorted(widths)))} are as frequent"
    for case in cases:
        if case.facts.get("width") not in (None, *((width,) if count > second else ())):
            case.add(f"{rule}, got {case.facts['width']}")


def _merged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of a case of several files: sums of counts, and what is the same in all of them."""
    if len(found) < 2:
        return dict(found[0]) if found else {}
    merged: dict[str, Any] = {"files": len(found)}
    for key in dict.fromkeys(key for facts in found for key in facts):
        values = [facts[key] for facts in found if facts.get(key) is not None]
        if key in ("instances", "tiles"):
            merged[key] = sum(values)
        elif key in ("lowest", "highest") and values:
            merged[key] = min(values) if key == "lowest" else max(values)
        elif values and (key not in SHARED or _same(values)):
            merged[key] = values[0]
    return merged


def _same(values: Iterable[Any]) -> bool:
    return len(set(map(str, values))) == 1
