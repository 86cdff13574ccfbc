"""Summary of the cohort that a model was trained on, without its cases."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.utils import BagKeys
from monai_mil_ext.utils.remote import as_path

from .weights import file_sha256

__all__ = ["summarize_cohort"]

Tables = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def summarize_cohort(
    items: Sequence[Mapping[str, Any]],
    table: Tables | None = None,
    fold: int | None = None,
    num_folds: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Count the items that a model is trained on, for :py:class:`monai_mil_ext.data.ModelRecord`.

    Args:
        items: items of the training part, with ``case_id``, ``patient`` and, for classes, an integer ``label``.
        table: table of the cohort, whose SHA-256 is recorded if the file exists; of several tables, that of the
            list of theirs.
        fold: fold that is left out for the test.
        num_folds: number of folds.
        seed: seed of the split.

    Example:
        >>> summarize_cohort([{"case_id": "a", "patient": "p", "label": 1}], fold=0)["classes"]
        {'1': 1}
    """
    labels = [item.get("label") for item in items]
    classes = Counter(str(int(label)) for label in labels if isinstance(label, (int, float)) and label == int(label))
    return {
        "cases": len(items),
        "patients": len({str(item.get(BagKeys.PATIENT, item.get(BagKeys.CASE_ID))) for item in items}),
        "classes": dict(sorted(classes.items())),
        "fold": fold,
        "num_folds": num_folds,
        "seed": seed,
        "table_sha256": _sha256([] if table is None else table),
    }


def _sha256(table: Tables) -> str | None:
    files = [as_path(table)] if isinstance(table, (str, os.PathLike)) else [as_path(file) for file in table]
    if not files or not all(file.is_file() for file in files):
        return None
    hashes = [file_sha256(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
