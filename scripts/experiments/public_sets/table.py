"""Values of the test part over seeds, and the published ones beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from experiments.workflows import RESULTS
from monai_mil_ext.apps.study import Predictions

__all__ = ["HEADS", "beside", "make_rows", "published_rows", "test_values"]

HEADS = {
    "bag_auroc": "AUROC",
    "bag_accuracy": "accuracy",
    "bag_macro_f1": "macro F1",
    "instance_auroc": "{instance} AUROC",
    "center_auroc": "the same of the center",
}
PUBLISHED = RESULTS / "published.json"


def test_values(predictions: Predictions) -> dict[str, float]:
    """Return the values of a test part: of bags at the most probable class, and of the attention as means over bags.

    ``bag_auroc`` of several classes is the mean over each class against the rest.

    Example:
        >>> rows = Predictions(list("ab"), list("ab"), [""] * 2, np.zeros(2, int), np.zeros(2, int), ["test"] * 2,
        ...                    np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))
        >>> test_values(rows)
        {'bag_auroc': 1.0, 'bag_accuracy': 0.5, 'bag_macro_f1': 0.333...}
    """
    rows = predictions.of_part("test")
    truth, output = rows.truth.astype(int), rows.output
    decided = output.argmax(axis=1)
    one_each = [
        roc_auc_score(truth == k, output[:, k]) for k in range(output.shape[1]) if 0 < sum(truth == k) < len(truth)
    ]
    values = {
        "bag_auroc": float(np.mean(one_each)) if one_each else float("nan"),
        "bag_accuracy": float(accuracy_score(truth, decided)),
        "bag_macro_f1": float(f1_score(truth, decided, average="macro")),
    }
    places = {name: rows.more[name] for name in ("instance_auroc", "center_auroc") if name in rows.more}
    return values | {name: float(np.nanmean(column)) for name, column in places.items() if np.isfinite(column).any()}


def make_rows(by_method: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return a row for each method: means and population sd over seeds, and the values of each seed."""
    rows = []
    for name, seeds in by_method.items():
        columns = {key: [values[key] for values in seeds] for key in seeds[0]}
        rows.append(
            {
                "name": name,
                "values": {key: float(np.mean(column)) for key, column in columns.items()},
                "sd": {key: float(np.std(column)) for key, column in columns.items()},
                "seeds": columns,
            }
        )
    return rows


def published_rows(name: str, path: Path = PUBLISHED) -> list[dict[str, str]]:
    """Return the published rows of a set."""
    return [row for row in json.loads(path.read_text())["rows"] if row["set"] == name]


def beside(rows: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, str]], instance: str) -> str:
    """Return a Markdown table of measured rows, each with the published one of the same method, and those alone.

    Args:
        rows: measured rows.
        published: rows of docs/results/published.json.
        instance: what the instances are called.
    """
    keys = [key for key in HEADS if any(key in row["values"] for row in rows)]
    heads = ["method", *(HEADS[key].format(instance=instance) for key in keys), "published", "comparable", "source"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    of_method: dict[str, list[Mapping[str, str]]] = {}
    for row in published:
        of_method.setdefault(row["method"], []).append(row)
    for row in rows:
        cells = [row["name"], *(_cell(row, key) for key in keys)]
        first, *more = of_method.pop(row["name"], [{}])
        lines.append(_line([*cells, *_published(first)]))
        lines += [_line([row["name"], *["-"] * len(keys), *_published(other)]) for other in more]
    rest = [row for same in of_method.values() for row in same]
    lines += [_line([row["method"], *["-"] * len(keys), *_published(row)]) for row in rest]
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], key: str) -> str:
    return f"{row['values'][key]:.3f} ± {row['sd'][key]:.3f}" if key in row["values"] else "-"


def _published(row: Mapping[str, str]) -> list[str]:
    return [row.get(key, "-") for key in ("values", "comparable", "source")]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
