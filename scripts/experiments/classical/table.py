"""Table of the classical data sets: values of each model over repeats, and of the model selected by validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from experiments.workflows import ROOT
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils import RESEARCH_USE

from .folds import NUM_FOLDS, SEED

__all__ = ["CHOSEN", "choose_models", "make_result", "summarize_model"]

CHOSEN = "chosen by validation"
Records = Sequence[Mapping[str, Any]]
PUBLISHED = {"musk1": 0.971, "musk2": 0.968}  # accuracy of ASMIL, with an unpublished protocol
HEADS = {"fold_sd": "its sd over folds"}
NOTE = (
    "Mean ± sample sd over {repeats} repeats of stratified {folds}-fold, the same folds for all; a repeat's value is "
    "the mean over its folds. Settings by one inner validation split of each fold, a fifth of what is not tested, then "
    "trained on both parts; 'chosen by validation' takes the network too, among twelve settings in all.\n\n"
    "The claim, bag AUROC of the row 'chosen by validation' at least that of the better regression less half its sd: "
    "{claims}."
)


def summarize_model(name: str, records: Records) -> dict[str, Any]:
    """Return the row of a model: accuracy and AUROC over repeats, from the records of all folds."""
    folds = [_fold_values(record) for record in records]
    repeats = {
        key: np.reshape([values[key] for values in folds], (-1, NUM_FOLDS)).mean(axis=1)
        for key in ("bag_auroc", "bag_accuracy")
    }
    fold_sd = float(np.std([values["bag_auroc"] for values in folds], ddof=1))
    return {
        "name": name,
        "values": {**{key: float(values.mean()) for key, values in repeats.items()}, "fold_sd": fold_sd},
        "sd": {key: float(values.std(ddof=1)) for key, values in repeats.items()},
        "repeats": {key: values.tolist() for key, values in repeats.items()},
        "settings_tried": sum({r["model"]: len(r["candidates"]) for r in records}.values()),
        "cpu_seconds": round(sum(r["cpu_seconds"] for r in records)),
    }


def choose_models(by_model: Mapping[str, Records]) -> list[Mapping[str, Any]]:
    """Select the model with the best validation AUROC in each fold, and return the records.

    Ties are broken by the lowest loss. No label of the test part is used.
    """

    def validation(record: Mapping[str, Any]) -> tuple[float, float]:
        best = record["validation"][record["chosen"]]
        return best["auroc"], -best["loss"]

    return [max(records, key=validation) for records in zip(*by_model.values(), strict=True)]


def make_result(
    records: Mapping[str, Mapping[str, Records]], networks: Sequence[str], regressions: Sequence[str]
) -> dict[str, Any]:
    """Return all rows of all sets, and the comparison of the chosen network with the better regression.

    Args:
        records: records by set and model, in the order of the folds.
        networks: names of the candidate models of :py:func:`choose_models`.
        regressions: names of the regressions to compare with.
    """
    rows, claims = [], {}
    for name, by_model in records.items():
        named = {model: [{**r, "model": model} for r in of_model] for model, of_model in by_model.items()}
        chosen = choose_models({model: named[model] for model in networks})
        by_name = {model: summarize_model(model, of_model) for model, of_model in named.items()}
        tried = sum(by_name[model]["settings_tried"] for model in networks)
        best = {**summarize_model(CHOSEN, chosen), "settings_tried": tried}
        claims[name] = _check_claim(name, best, [by_name[model] for model in regressions])
        rows += [{**row, "name": f"{name}: {row['name']}"} for row in (best, *by_name.values())]
    # the selected row repeats trainings of other rows
    seconds = sum(row["cpu_seconds"] for row in rows if not row["name"].endswith(CHOSEN))
    repeats = len(rows[0]["repeats"]["bag_auroc"])
    texts = "; ".join(_describe_claim(*claim) for claim in claims.items())
    seeds = [SEED + repeat for repeat in range(repeats)]
    return {
        **collect_provenance("scripts/reproduce classical", seeds, threads=1, repository=ROOT),
        "use": RESEARCH_USE,
        "columns": ["settings_tried"],
        "heads": HEADS,
        "note": NOTE.format(repeats=repeats, folds=NUM_FOLDS, claims=texts),
        "cpu_seconds": seconds,
        "claims": claims,
        "rows": rows,
    }


def _fold_values(record: Mapping[str, Any]) -> dict[str, float]:
    labels, probability = np.array(record["labels"]), np.array(record["probabilities"])
    return {
        "bag_auroc": float(roc_auc_score(labels, probability)),
        "bag_accuracy": float(np.mean((probability > 0.5) == labels)),
    }


def _check_claim(name: str, chosen: Mapping[str, Any], regressions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the selected network with the better regression less half its sd, over repeats and over folds."""
    reference = max(regressions, key=lambda row: float(row["values"]["bag_auroc"]))
    reference_auroc, auroc = reference["values"]["bag_auroc"], chosen["values"]["bag_auroc"]
    bounds = {
        "repeats": reference_auroc - 0.5 * reference["sd"]["bag_auroc"],
        "folds": reference_auroc - 0.5 * reference["values"]["fold_sd"],
    }
    return {
        "chosen": auroc,
        "reference": reference["name"],
        "reference_auroc": reference_auroc,
        "at_least": bounds,
        "holds": {kind: auroc >= bound for kind, bound in bounds.items()},
        "published_asmil_accuracy": PUBLISHED.get(name),
    }


def _describe_claim(name: str, claim: Mapping[str, Any]) -> str:
    bounds = [
        f"{claim['at_least'][kind]:.3f} by the sd over {kind}, {'held' if held else '**missed**'}"
        for kind, held in claim["holds"].items()
    ]
    return f"{name} {claim['chosen']:.3f} for " + " and ".join(bounds)
