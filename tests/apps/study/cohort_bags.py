"""Small cohorts of bag files in which the label is easy to learn, or noise."""

from pathlib import Path

import numpy as np
import torch

from monai_mil_ext.apps.study import Predictions, Task
from monai_mil_ext.data import write_bag

TASKS = {
    "classification": Task("classification", ("no", "yes")),
    "several classes": Task("classification", ("a", "b", "c")),
    "multilabel": Task("multilabel", ("p", "q")),
    "ordinal": Task("ordinal", ("low", "middle", "high")),
    "regression": Task("regression"),
    "survival": Task("survival"),
    "cox": Task("cox"),
}


def make_items(folder, kind="classification", num_cases=36, noise=False, seed=0):
    """Write bags of 12 instances with 4 features, the first two of which tell the label, and return their items."""
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    items = []
    for i in range(num_cases):
        level, other = i % 3, i // 3 % 2
        bag = torch.as_tensor(rng.normal(size=(12, 4)), dtype=torch.float32)
        if not noise:
            bag[:, 0] += 2.0 * (level if kind != "classification" else 2 * (i % 2))
            bag[:, 1] += 3.0 * other
        path = folder / f"bag_{i:02d}.h5"
        if not path.exists():
            write_bag(path, {"features": bag})
        label = {
            "classification": {"label": i % 2},
            "multilabel": {"label": torch.tensor([float(level > 0), np.nan if i == 5 else float(other)])},
            "regression": {"label": 50.0 + 10 * level},
        }.get(kind, {"label": level})
        if kind in ("survival", "cox"):
            label = {"time": float(10 * (3 - level) + rng.uniform(0, 5)), "event": float(i % 4 != 0)}
        case = f"c{i:02d}"
        items.append({"case_id": case, "patient": f"p{i:02d}", "image": str(path), "num_instances": 12, **label})
    return items


def predictions_of(score, truth):
    """Return predictions of two classes, all of the test part of one fold."""
    names, zeros = [str(i) for i in range(len(truth))], np.zeros(len(truth), dtype=int)
    output = np.column_stack([1 - score, score])
    return Predictions(names, names, [""] * len(truth), zeros, zeros, ["test"] * len(truth), truth, output)
