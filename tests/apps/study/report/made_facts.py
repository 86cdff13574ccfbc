"""Plausible facts of a study, as a study would give them."""

import numpy as np

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report import ReportFacts

METHODS = ("ABMIL", "QGMIL", "TransMIL+NG", "ASMIL", "ACMIL", "MeanMIL")
NAMES = {
    "classification": ("benign", "malignant"),
    "multilabel": ("edema", "effusion", "nodule"),
    "ordinal": ("grade 1", "grade 2", "grade 3"),
}
VALUES = {
    "classification": ("auroc", "auprc", "balanced_accuracy", "macro_f1", "sensitivity", "specificity", "ppv", "npv"),
    "multilabel": ("auroc", "auprc", "balanced_accuracy", "sensitivity", "specificity"),
    "ordinal": ("kappa", "mae", "auroc", "balanced_accuracy", "macro_f1"),
    "regression": ("r2", "mae", "rmse", "spearman"),
    "survival": ("c_index", "integrated_brier"),
    "cox": ("c_index",),
}
SITES = ("Bergen", "Graz", "Lyon")
FOLDS = 5


def value(rng, middle=0.8, half=0.08):
    middle += rng.normal() * half / 3
    return {
        "value": middle,
        "low": middle - half * rng.uniform(0.8, 1.3),
        "high": middle + min(half, max(0.99 - middle, 0.01)),
    }


def roc(rng, power=0.25):
    x = np.linspace(0, 1, 51)
    y = x ** (power * rng.uniform(0.8, 1.3))
    return {"fpr": x, "tpr": y, "low": (y - 0.1).clip(0), "high": (y + 0.07).clip(0, 1)}


def pr(rng):
    x = np.linspace(0, 1, 51)
    y = 1 - 0.5 * x ** rng.uniform(2, 4)
    return {"recall": x, "precision": y, "low": (y - 0.12).clip(0), "high": (y + 0.08).clip(0, 1)}


def survival(rng):
    times = np.arange(0, 61.0, 2)
    groups = []
    for name, rate in (("low risk", 0.008), ("medium risk", 0.018), ("high risk", 0.04)):
        curve = np.exp(-rate * rng.uniform(0.8, 1.2) * times)
        band = 0.04 + 0.002 * times
        at_risk = [[t, int(30 * np.exp(-(rate + 0.01) * t))] for t in (0, 12, 24, 36, 48, 60)]
        groups.append(
            {
                "name": name,
                "times": times,
                "survival": curve,
                "low": (curve - band).clip(0),
                "high": (curve + band).clip(0, 1),
                "at_risk": at_risk,
            }
        )
    return {"groups": groups, "log_rank_p": 0.0004, "hazard_ratio": {"value": 1.9, "low": 1.3, "high": 2.7}}


def confusion(rng, task):
    count = len(task.class_names)
    if task.kind == "multilabel":
        return [[[30, 6], [5, 19]]] * count
    return (np.eye(count, dtype=int) * rng.integers(12, 20) + rng.integers(0, 5, (count, count))).tolist()


def summary(task, rng, sites=True, localization=True, offset=0.0):
    names, values = task.class_names, VALUES[task.kind]
    main = {"ordinal": "kappa"}.get(task.kind, values[0])
    result = {
        "num_cases": 60,
        "num_patients": 55,
        "num_folds": FOLDS,
        "num_repeats": 1,
        "main": main,
        "values": {m: value(rng, (2.3 if m in ("mae", "rmse") else 0.8) + offset) for m in values},
        "folds": [
            {"fold": k, "repeat": 0, "num_cases": 12, main: 0.8 + offset + 0.06 * rng.normal()} for k in range(FOLDS)
        ],
        "classes": [
            {"name": n, "num_cases": 20, "auroc": value(rng), "auprc": value(rng), "sensitivity": value(rng)}
            for n in names
        ],
        "sites": [{"name": n, "num_cases": 20, "num_positive": 9, main: value(rng, 0.78, 0.15)} for n in SITES]
        if sites
        else [],
        "attention": {
            "entropy_ratio": value(rng, 0.7),
            "top_10_share": value(rng, 0.4),
            "stability": value(rng, 0.02, 0.01),
        },
        "localization": {
            k: value(rng, m) for k, m in (("instance_auroc", 0.82), ("center_auroc", 0.7), ("difference", 0.12))
        }
        if localization
        else None,
        "notes": [],
    }
    if names:
        result |= {"confusion": confusion(rng, task), "roc": roc(rng), "pr": pr(rng)}
        result["values"] |= {"brier": value(rng, 0.16, 0.04), "ece": value(rng, 0.06, 0.02)}
        bins = [
            {"predicted": p, "observed": p**1.3, "low": p**1.3 * 0.6, "high": min(1, p**1.3 + 0.15), "count": 12}
            for p in (0.08, 0.25, 0.5, 0.71, 0.93)
        ]
        result["calibration"] = {"bins": bins, "slope": value(rng, 0.8, 0.3), "intercept": value(rng, -0.1, 0.3)}
        result["thresholds"] = [{"fold": k, "threshold": 0.4 + 0.05 * k} for k in range(FOLDS)]
        if len(names) > 2:
            result |= {"roc_classes": {n: roc(rng) for n in names}, "pr_classes": {n: pr(rng) for n in names}}
    if task.has_times:
        result["survival"] = survival(rng)
    if task.kind == "regression":
        truth = rng.normal(60, 10, 60)
        result["scatter"] = {"truth": truth, "predicted": truth + rng.normal(0, 5, 60)}
    return result


def history(rng):
    epochs = np.arange(30)
    return [
        {
            "epoch": int(e),
            "train_loss": 0.7 * np.exp(-e / 9) + 0.02 * rng.random(),
            "val_loss": 0.45 + 0.25 * np.exp(-e / 6) + 0.004 * e + 0.02 * rng.random(),
        }
        for e in epochs
    ]


def labels(task):
    if task.kind == "regression":
        return {"mean": 60.2, "sd": 10.4, "min": 31.0, "max": 88.5}
    return (
        {"event": 34, "censored": 26}
        if task.has_times
        else {name: 30 - 6 * i for i, name in enumerate(task.class_names)}
    )


def cases(task, methods, rng, slides=False, pictures=False, count=60):
    rows = []
    for i in range(count):
        error = float(rng.beta(1, 3))
        truth = (
            f"event at {rng.integers(3, 60)}"
            if task.has_times
            else float(rng.normal(60, 10))
            if task.kind == "regression"
            else task.class_names[i % len(task.class_names)]
        )
        row = {
            "case_id": f"case_{i:03d}",
            "patient": f"p{i // 2:02d}",
            "site": SITES[i % 3],
            "fold": i % FOLDS,
            "truth": truth,
            "error": error,
            "outputs": {m: float(rng.random()) for m in methods},
            "num_instances": int(rng.integers(20, 2000)),
        }
        size = 400 if slides else 40
        weights = np.exp(-0.5 * ((np.arange(size) - rng.integers(size)) / 4) ** 2) + 0.05 * rng.random(size)
        if pictures:
            row["attention"] = weights / weights.sum()
        if slides:
            row["coords"] = np.stack([np.arange(size) % 25, np.arange(size) // 25], 1) * 512
        else:
            row["position"] = np.arange(size) * 5.0 - 120
        rows.append(row)
    return rows


def made_facts(
    kind="classification",
    num_methods=2,
    names=None,
    sites=True,
    clinical=True,
    localization=True,
    slides=False,
    pictures=False,
    **more,
):
    """Return facts of a study; ``more`` replaces some of them."""
    rng = np.random.default_rng(7)
    task = Task(kind, names or NAMES.get(kind, ()), (12, 24, 36, np.inf) if kind == "survival" else ())
    methods = METHODS[:num_methods]
    summaries = {m: summary(task, rng, sites, localization, offset=-0.02 * i) for i, m in enumerate(methods)}
    main = summaries[methods[0]]["main"]
    pairs = [(a, b) for i, a in enumerate(methods) for b in methods[i + 1 :]]
    sources = {
        m: {k: summary(task, rng, sites, False, offset) for k, offset in (("clinical", -0.1), ("both", 0.03))}
        for m in methods
    }
    effects = [
        {"name": n, "kind": k, "model": m, "ratio": r, "low": r * 0.8, "high": r * 1.3, "p": p}
        for n, k, r, p in (("age, per 10 years", "number", 1.4, 0.0004), ("sex: female", "category", 0.8, 0.34))
        for m in ("univariable", "multivariable")
    ]
    given = {
        "folds": {
            "plan": "5-fold cross-validation by patient, stratified by label",
            "by": "patient",
            "num_folds": FOLDS,
            "repeats": 1,
            "counts": [{"fold": k, "repeat": 0, "train": 38, "val": 10, "test": 12} for k in range(FOLDS)],
        },
        "methods": {
            m: {
                "settings": {"learning_rate": 1e-4, "epochs": 30, "hidden_size": 256, "batch_size": 8},
                "candidates": 3,
                "chosen": [{"fold": k, "learning_rate": 1e-3} for k in range(FOLDS)],
            }
            for m in methods
        },
        "comparisons": [
            {
                "a": a,
                "b": b,
                "metric": main,
                "difference": 0.021,
                "low": -0.034,
                "high": 0.08,
                "p": 0.2149,
                "p_holm": 0.43,
            }
            for a, b in pairs
        ],
        "clinical": {"summaries": sources, "effects": effects, "columns": ["age", "sex"]} if clinical else {},
        "cases": cases(task, methods, rng, slides, pictures),
        "histories": {m: [history(rng) for _ in range(FOLDS)] for m in methods},
        "provenance": {
            "command": "python -m monai.bundle run --config_file configs/study.yaml --table /data/DOE_JOHN/cohort.csv",
            "commit": "abc1234",
            "date": "2026-01-02T03:04:05+00:00",
            "seeds": [0],
            "versions": {"monai-mil-ext": "0.2.0", "monai": "1.6.1", "torch": "2.8.0"},
            "machine": "2 cores, 8 GiB",
            "threads": 1,
            "times": {"training": 192.4, "statistics": 7.31, "report": 3.2},
            "num_samples": 1000,
        },
        "notes": ["Label and site are confounded: 18 of 20 cases from Graz are malignant."] if sites else [],
    }
    cohort = {
        "num_cases": 60,
        "num_patients": 55,
        "num_sites": 3 if sites else 1,
        "labels": labels(task),
        "instances": "tiles" if slides else "slices",
        "encoder": "ResNet-50 (ImageNet)",
        "median_instances": 40,
        "left_out": [{"case_id": "case_099", "reason": "its file is damaged"}],
    }
    if sites and kind != "regression":
        cohort["sites"] = {s: {n: c // 3 for n, c in labels(task).items()} for s in SITES}
    return ReportFacts(
        **{"title": "Nodules on CT", "task": task, "cohort": cohort, "summaries": summaries, **given, **more}
    )
