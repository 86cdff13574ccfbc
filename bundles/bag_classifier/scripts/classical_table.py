"""The table of the classical sets: values of each model over repeats, and of the model that validation chooses."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

import monai_mil_ext
from monai_mil_ext.utils import RESEARCH_USE

from .folds import NUM_FOLDS, SEED

__all__ = ["CHOSEN", "choose", "result", "row"]

CHOSEN = "chosen by validation"
Records = Sequence[Mapping[str, Any]]
PUBLISHED = {"musk1": 0.971, "musk2": 0.968}  # accuracy of ASMIL, by a protocol that is not known
HEADS = {"fold_sd": "its sd over folds"}
NOTE = (
    "Mean ± sample sd over {repeats} repeats of stratified {folds}-fold, the same folds for all; a repeat's value is "
    "the mean over its folds. Settings by one inner validation split of each fold, a fifth of what is not tested, then "
    "trained on both parts; 'chosen by validation' takes the network too, among twelve settings in all.\n\n"
    "The claim, bag AUROC of the row 'chosen by validation' at least that of the better regression less half its sd: "
    "{claims}."
)


def row(name: str, records: Records) -> dict[str, Any]:
    """Accuracy and AUROC of the records of all folds, repeat by repeat."""
    found = [_values(record) for record in records]
    repeats = {
        key: np.reshape([values[key] for values in found], (-1, NUM_FOLDS)).mean(axis=1)
        for key in ("bag_auroc", "bag_accuracy")
    }
    fold_sd = float(np.std([values["bag_auroc"] for values in found], ddof=1))
    return {
        "name": name,
        "values": {**{key: float(values.mean()) for key, values in repeats.items()}, "fold_sd": fold_sd},
        "sd": {key: float(values.std(ddof=1)) for key, values in repeats.items()},
        "repeats": {key: values.tolist() for key, values in repeats.items()},
        "settings_tried": sum({r["model"]: len(r["settings"]) for r in records}.values()),
        "cpu_seconds": round(sum(r["cpu_seconds"] for r in records)),
    }


def choose(by_model: Mapping[str, Records]) -> list[Mapping[str, Any]]:
    """Of each fold the record of the model with the best validation AUROC; of equal ones, the lowest loss.

    Neither sees a label of the test part.
    """

    def judged(record: Mapping[str, Any]) -> tuple[float, float]:
        best = record["validation"][record["chosen"]]
        return best["auroc"], -best["loss"]

    return [max(records, key=judged) for records in zip(*by_model.values(), strict=True)]


def result(
    found: Mapping[str, Mapping[str, Records]], networks: Sequence[str], regressions: Sequence[str]
) -> dict[str, Any]:
    """All rows of all sets, and how the chosen network compares with the better regression.

    Args:
        found: records by set and model, in the order of the folds.
        networks: names of those that ``choose`` is among.
        regressions: names of those that it is compared with.
    """
    rows, claims = [], {}
    for name, by_model in found.items():
        named = {model: [{**r, "model": model} for r in records] for model, records in by_model.items()}
        chosen = choose({model: named[model] for model in networks})
        every = {model: row(model, records) for model, records in named.items()}
        best = {**row(CHOSEN, chosen), "settings_tried": sum(every[model]["settings_tried"] for model in networks)}
        claims[name] = _claim(name, best, [every[model] for model in regressions])
        rows += [{**one, "name": f"{name}: {one['name']}"} for one in (best, *every.values())]
    # the chosen row has no training of its own
    seconds = sum(one["cpu_seconds"] for one in rows if not one["name"].endswith(CHOSEN))
    repeats = len(rows[0]["repeats"]["bag_auroc"])
    note = NOTE.format(repeats=repeats, folds=NUM_FOLDS, claims="; ".join(_said(*claim) for claim in claims.items()))
    return {**_origin(repeats), "note": note, "cpu_seconds": seconds, "claims": claims, "rows": rows}


def _values(record: Mapping[str, Any]) -> dict[str, float]:
    labels, probability = np.array(record["labels"]), np.array(record["probabilities"])
    return {
        "bag_auroc": float(roc_auc_score(labels, probability)),
        "bag_accuracy": float(np.mean((probability > 0.5) == labels)),
    }


def _claim(name: str, chosen: Mapping[str, Any], regressions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """AUROC of the chosen network against the better regression less half its sd: over repeats, and over folds."""
    reference = max(regressions, key=lambda one: float(one["values"]["bag_auroc"]))
    auroc, found = reference["values"]["bag_auroc"], chosen["values"]["bag_auroc"]
    bounds = {
        "repeats": auroc - 0.5 * reference["sd"]["bag_auroc"],
        "folds": auroc - 0.5 * reference["values"]["fold_sd"],
    }
    return {
        "chosen": found,
        "reference": reference["name"],
        "reference_auroc": auroc,
        "at_least": bounds,
        "holds": {kind: found >= bound for kind, bound in bounds.items()},
        "published_asmil_accuracy": PUBLISHED.get(name),
    }


def _said(name: str, claim: Mapping[str, Any]) -> str:
    bounds = [
        f"{claim['at_least'][kind]:.3f} by the sd over {kind}, {'held' if held else '**missed**'}"
        for kind, held in claim["holds"].items()
    ]
    return f"{name} {claim['chosen']:.3f} for " + " and ".join(bounds)


def _origin(repeats: int) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    names = ("monai", "torch", "numpy", "scikit-learn")
    return {
        "command": "scripts/reproduce classical",
        "commit": commit.stdout.strip(),
        "seeds": [SEED + repeat for repeat in range(repeats)],
        "versions": {"monai-mil-ext": monai_mil_ext.__version__, **{n: version(n) for n in names}},
        "use": RESEARCH_USE,
        "columns": ["settings_tried"],
        "heads": HEADS,
    }
