"""Facts of the file or folder of a case, for results and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.utils import BagKeys

__all__ = ["input_columns", "input_facts"]

CONTAINER, NOTES, OPTION = str(BagKeys.CONTAINER), str(BagKeys.NOTES), str(BagKeys.OPTION)


def input_facts(item: Mapping[Any, Any]) -> dict[str, Any]:
    """Return ``container``, ``shape``, ``spacing`` (mm of a scan, micrometers of a slide) and ``notes``, as far known.

    Args:
        item: bag, with ``spatial_shape`` and either the ``affine`` of a scan or the ``slide_mpp`` of a slide.

    Example:
        >>> affine = torch.diag(torch.tensor([0.7, 0.7, 5.0, 1.0]))
        >>> input_facts({"container": "NIfTI", "affine": affine, "spatial_shape": (512, 512, 40), "notes": ""})
        {'container': 'NIfTI', 'shape': [512, 512, 40], 'spacing': [0.7, 0.7, 5.0]}
    """
    facts: dict[str, Any] = {}
    if item.get(CONTAINER):
        facts[CONTAINER] = str(item[CONTAINER])
    if item.get(BagKeys.SPATIAL_SHAPE) is not None:
        facts["shape"] = [int(size) for size in item[BagKeys.SPATIAL_SHAPE]]
    if item.get(BagKeys.AFFINE) is not None:
        affine = torch.as_tensor(item[BagKeys.AFFINE]).double()
        facts["spacing"] = [round(float(mm), 4) for mm in affine[:3, :3].norm(dim=0)]
    elif item.get(BagKeys.SLIDE_MPP) is not None:
        facts["spacing"] = [round(float(item[BagKeys.SLIDE_MPP]), 4)] * 2
    notes = item.get(NOTES)
    if notes:
        facts[NOTES] = notes.split("; ") if isinstance(notes, str) else list(notes)
    return facts


def input_columns(facts: Mapping[str, Any], option: str = "") -> dict[str, Any]:
    """Return the columns ``container``, ``shape``, ``spacing``, ``option`` and ``notes`` of a table as texts.

    Args:
        facts: values of :py:func:`input_facts` or of :py:class:`monai_mil_ext.utils.InputError`.
        option: command-line option that would help with an input that is refused.

    Example:
        >>> input_columns({"container": "NIfTI", "shape": [512, 512, 40], "spacing": [0.7, 0.7, 5.0]})
        {'container': 'NIfTI', 'shape': '512 x 512 x 40', 'spacing': '0.7 x 0.7 x 5 mm', 'option': '', 'notes': ''}
    """
    shape, spacing = facts.get("shape") or (), facts.get("spacing") or ()
    unit = " um" if len(shape or spacing) == 2 else " mm"
    return {
        CONTAINER: facts.get(CONTAINER, ""),
        "shape": _product(shape),
        "spacing": f"{_product(spacing)}{unit}" if spacing else "",
        OPTION: f"try {option}" if option else "",  # a spreadsheet takes text that begins with a dash for a formula
        NOTES: "; ".join(note.removesuffix(".") for note in facts.get(NOTES) or ()),
    }


def _product(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
