"""Made cohorts with clinical variables whose effects are known."""

import numpy as np

from monai_mil_ext.apps.study import Predictions, Task

BINARY = Task("classification", ("benign", "malignant"))
TASKS = {
    "binary": BINARY,
    "classes": Task("classification", ("a", "b", "c")),
    "multilabel": Task("multilabel", ("x", "y")),
    "ordinal": Task("ordinal", ("low", "mid", "high")),
    "regression": Task("regression"),
    "cox": Task("cox"),
    "survival": Task("survival", bin_edges=(1, 2, np.inf)),
}
BETA = {"age": 0.05, "sex": 0.7, "II": 0.6, "III": 1.0, "marker": -0.5}
GRADES = ("I", "II", "III")


def make_variables(rng, count, missing=0.1):
    """Return the linear predictor and the cells of each case; values are missing completely at random."""
    age, sex, grade = rng.normal(60, 10, count).round(1), rng.integers(0, 2, count), rng.integers(0, 3, count)
    marker = (0.3 * (age - 60) / 10 + rng.normal(0, 1, count)).round(3)
    score = BETA["age"] * (age - 60) + BETA["sex"] * (sex - 0.5) + BETA["marker"] * marker
    score = score + np.array([0, BETA["II"], BETA["III"]])[grade] - 0.5
    cells = {
        "age": [f"{value}" for value in age],
        "sex": ["fm"[value] for value in sex],
        "grade": [GRADES[value] for value in grade],
        "marker": [f"{value}" for value in marker],
    }
    for name, absent in (("age", "NA"), ("grade", "unknown")):
        for index in np.flatnonzero(rng.random(count) < missing):
            cells[name][index] = absent
    return score, [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def make_labels(rng, score, kind):
    """Return the label columns of items for a linear predictor."""
    if kind in ("cox", "survival"):
        time, censored = rng.exponential(np.exp(-score)), rng.exponential(1.6, len(score))
        pairs = zip(np.minimum(time, censored).tolist(), (time <= censored).astype(int).tolist(), strict=True)
        return [{"time": float(t), "event": e} for t, e in pairs]
    noisy = score + rng.logistic(size=len(score))
    if kind == "multilabel":
        return [{"label": [float(a), float(b)]} for a, b in zip(noisy > 0, rng.random(len(score)) < 0.4, strict=True)]
    if kind == "regression":
        return [{"label": float(value)} for value in 50 + 10 * (score + rng.normal(size=len(score)))]
    return [
        {"label": int(c)} for c in (np.digitize(noisy, [-0.5, 0.8]) if kind in ("classes", "ordinal") else noisy > 0)
    ]


def make_items(rng, count, kind="binary", missing=0.1, noise=False, hidden=0.0):
    """Return items, and the predictor that made their labels.

    With ``noise`` labels depend on nothing; with ``hidden``, also on a factor of this strength that only bags show,
    which is then returned.
    """
    score, cells = make_variables(rng, count, missing)
    factor = rng.normal(0, hidden, count)
    score = score + factor
    labels = make_labels(rng, rng.permutation(score) if noise else score, kind)
    items = [
        {"case_id": f"c{i}", "patient": f"p{i}", "covariates": row, **label}
        for i, (row, label) in enumerate(zip(cells, labels, strict=True))
    ]
    return items, factor if hidden else score


def make_bag(rng, items, parts, task, score):
    """Return predictions of a made network whose scores are given, with the outputs of the task."""
    count, names = len(items), [item["case_id"] for item in items]
    if task.kind in ("regression", "survival", "cox"):
        output = np.asarray(score, dtype=float)[:, None]
    elif task.kind == "multilabel":
        output = 1 / (1 + np.exp(-np.column_stack([score, rng.normal(size=count)])))
    else:
        logits = np.outer(score, np.arange(len(task.class_names)) - 0.5 * (len(task.class_names) - 1))
        output = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    times = np.array(task.bin_edges) if task.kind == "survival" else None
    survival = None if times is None else np.exp(-np.outer(np.exp(output[:, 0]), np.minimum(times, 5)))
    zeros, patients = np.zeros(count, dtype=int), [item["patient"] for item in items]
    return Predictions(names, patients, [""] * count, zeros, zeros, parts, task.truth(items), output, survival, times)
