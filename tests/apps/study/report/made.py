"""Predictions whose truth is known, for the tests of the statistics."""

import numpy as np
from scipy import stats

from monai_mil_ext.apps.study import Predictions, Task

NAMES = ("a", "b", "c")
BINARY = Task("classification", NAMES[:2])
EDGES = (0.2, 0.5, 1.0, 2.0, np.inf)
TASKS = {
    "binary": BINARY,
    "classification": Task("classification", NAMES),
    "multilabel": Task("multilabel", NAMES),
    "ordinal": Task("ordinal", NAMES),
    "regression": Task("regression"),
    "survival": Task("survival", bin_edges=EDGES),
    "cox": Task("cox"),
}


def table(truth, output, fold=None, patient=None, part="test", repeat=None, **columns):
    """Return predictions of one part; without patients each case has its own."""
    n = len(truth)
    return Predictions(
        case_id=columns.pop("case_id", [f"case {i}" for i in range(n)]),
        patient=[f"patient {p}" for p in (range(n) if patient is None else patient)],
        site=columns.pop("site", [""] * n),
        repeat=np.zeros(n, int) if repeat is None else repeat,
        fold=np.zeros(n, int) if fold is None else fold,
        part=[part] * n,
        truth=np.asarray(truth),
        output=np.asarray(output, float),
        **columns,
    )


def two(score):
    """Return probabilities of two classes whose second is monotone in the score."""
    p = stats.norm.cdf(score)
    return np.stack([1 - p, p], axis=1)


def binormal(rng, num_cases, auroc, per_patient=1, positives=0.5):
    """Return labels, scores and patients of a population with a known AUROC; a patient's cases share half of it."""
    num_patients = num_cases // per_patient
    patient = np.repeat(np.arange(num_patients), per_patient)
    label = (np.arange(num_patients) < round(positives * num_patients)).astype(int)[patient]
    shared = 0.5 if per_patient > 1 else 0.0
    noise = np.sqrt(shared) * rng.standard_normal(num_patients)[patient]
    noise += np.sqrt(1 - shared) * rng.standard_normal(num_cases)
    return label, np.sqrt(2) * stats.norm.ppf(auroc) * label + noise, patient


def exponential(rng, num_cases, per_patient=1, scale=2.6):
    """Return times, events and risks of exponential survival with 31 % censoring, and patients."""
    num_patients = num_cases // per_patient
    patient = np.repeat(np.arange(num_patients), per_patient)
    shared = 0.5 if per_patient > 1 else 0.0
    risk = np.sqrt(shared) * rng.standard_normal(num_patients)[patient]
    risk += np.sqrt(1 - shared) * rng.standard_normal(num_cases)
    event_time, censoring = rng.exponential(np.exp(-0.8 * risk)), rng.exponential(scale, num_cases)
    truth = np.stack([np.minimum(event_time, censoring), event_time <= censoring], axis=1)
    return truth, risk, patient


def labels_of(kind, z, rng):
    if kind in ("survival", "cox"):
        event, censoring = rng.exponential(np.exp(-z)), rng.exponential(3, len(z))
        return np.stack([np.minimum(event, censoring), event <= censoring], axis=1)
    if kind == "multilabel":
        return np.where(rng.random((len(z), 3)) < 0.1, np.nan, np.stack([z > 0, z > 0.5, z < -0.3], axis=1))
    return {"binary": (z > 0).astype(int), "regression": 10 * z}.get(kind, np.digitize(z, [-0.5, 0.5]))


def outputs_of(kind, score):
    if kind == "binary":
        return two(score)
    if kind == "multilabel":
        return stats.norm.cdf(np.stack([score, score - 0.5, -score - 0.3], axis=1))
    if kind in ("classification", "ordinal"):
        likelihood = np.exp(-np.square(score[:, None] - np.array([-1, 0, 1])))
        return likelihood / likelihood.sum(axis=1, keepdims=True)
    return score[:, None]


def study(kind, num_cases=60, folds=5, repeats=1, per_patient=1, seed=0):
    """Return the predictions of both parts of all folds of a made study."""
    rng = np.random.default_rng(seed)
    num_patients = num_cases // per_patient
    patient, z = np.arange(num_cases) % num_patients, rng.standard_normal(num_cases)
    truth, parts = labels_of(kind, z, rng), []
    for number in range(folds * repeats):
        if number % folds == 0:
            fold = rng.permutation(num_patients)[patient] % folds
        test = np.flatnonzero(fold == number % folds)
        val = rng.choice(np.setdiff1d(np.arange(num_cases), test), num_cases // 4, replace=False) if folds > 1 else test
        for part, rows in (("test", test), ("val", val)):
            score = z[rows] + rng.standard_normal(len(rows)) + 0.3 * number
            columns = {"case_id": [f"case {i}" for i in rows], "site": [f"site {i % 2}" for i in rows]}
            if kind == "survival":
                times = np.array(EDGES)
                columns |= {"times": times, "survival": np.exp(-np.exp(score)[:, None] * times)}
            places = {"fold": np.full(len(rows), number), "repeat": np.full(len(rows), number // folds)}
            more = {"entropy_ratio": rng.random(len(rows))}
            parts.append(
                table(
                    truth[rows],
                    outputs_of(kind, score),
                    patient=patient[rows],
                    part=part,
                    more=more,
                    **places,
                    **columns,
                )
            )
    return Predictions.concatenate(parts)
