"""The table over folds: what each fold's test gave, with mean and spread."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE, write_json

from .bag_classification import bag_values
from .calibration import brier_score, expected_calibration_error
from .seeds import seed_summary

__all__ = ["fold_summary", "summarize_folds"]


def fold_summary(
    folds: Mapping[int, tuple[Sequence[int], np.ndarray[Any, Any]]], kappa_weights: str | None = None
) -> dict[str, Any]:
    """Values of each fold, and their mean and sample sd, of labels (B,) and class probabilities (B, C) by fold.

    The values are those of :py:func:`bag_values`, :py:func:`expected_calibration_error` and :py:func:`brier_score`.
    Each is taken within a fold: probabilities of different networks are never ranked against one another.

    Args:
        folds: what the test of each gave.
        kappa_weights: see :py:func:`bag_values`.

    Raises:
        ValueError: when there is no fold, or the arrays don't fit.

    Example:
        >>> answers = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> found = fold_summary({0: ([0, 1], answers), 1: ([1, 0], answers)})
        >>> found["values"]["bag_auroc"], round(found["sd"]["bag_auroc"], 3), found["num_bags"]
        (0.5, 0.707, 4)
    """
    by_fold: dict[Any, dict[str, float]] = {}
    for fold, (label, probability) in folds.items():
        calibration = {
            "calibration_error": expected_calibration_error(label, probability),
            "brier_score": brier_score(label, probability),
        }
        by_fold[fold] = {**bag_values(label, probability, kappa_weights), **calibration}
    summary = seed_summary(by_fold)
    # sample sd of all: the folds are a sample of what the splits could have been
    spread = {
        name: float(np.std([values[name] for values in by_fold.values()], ddof=1)) if len(by_fold) > 1 else float("nan")
        for name in summary["values"]
    }
    return {
        "use": RESEARCH_USE,
        "num_folds": len(by_fold),
        "num_bags": sum(len(label) for label, _ in folds.values()),
        "values": summary["values"],
        "sd": spread,
        "folds": by_fold,
    }


def summarize_folds(folder: str | os.PathLike[str], kappa_weights: str | None = None) -> dict[str, Any]:
    """Write ``folds.json``, the :py:func:`fold_summary` of every ``fold_<k>/bags.csv`` in a folder, and give it.

    Raises:
        ValueError: when there is no such file, or one lacks its columns.
    """
    root = Path(folder)
    found = {}
    for file in root.glob("fold_*/bags.csv"):
        number = re.fullmatch(r"fold_(\d+)", file.parent.name)
        if number:
            found[int(number[1])] = _answers(file)
    if not found:
        raise ValueError(f"`folder` must hold fold_<k>/bags.csv of an evaluation, got none in {root.name!r}.")
    summary = fold_summary(dict(sorted(found.items())), kappa_weights)
    write_json(root / "folds.json", summary)
    return summary


def _answers(file: Path) -> tuple[list[int], np.ndarray[Any, Any]]:
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    names = [name for name in (rows[0] if rows else {}) if re.fullmatch(r"probability_\d+", name)]
    if not names or "label" not in rows[0]:
        raise ValueError(f"`folder` must hold bags.csv with labels and probabilities, got {file.parent.name!r}.")
    return [int(row["label"]) for row in rows], np.array([[float(row[name]) for name in names] for row in rows])
