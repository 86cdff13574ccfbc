"""QG-MIL and ASMIL with and without their parts, and other networks, on the classical sets: one setting, ten folds.

A bag is tested once, by the network of its fold, of one repeat of the folds of ``scripts/reproduce classical``. A
stopped experiment counts the first folds of a set, if they are at least ``min_folds``.
Besides the claims, each network is compared with ABMIL: paired difference of AUROC and macro F1, with an interval by
drawing sets and, within them, bags. Nothing is selected: sizes are those of the protocol of the classical sets, and
weights of further terms the published ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

from experiments.classical.methods import MODELS
from experiments.classical.protocol import DATA, evaluate_fold
from experiments.workflows import prepare_data
from monai_mil_ext.apps.study import Run, StudyRunner

from .configs import named_network, qgmil_block, term_handlers
from .cost import Cost
from .settings import ASMIL_PARTS, QGMIL_PARTS, cell, read_settings, variants
from .statements import FULL_ASMIL, FULL_QGMIL, PLAIN_ASMIL, PLAIN_QGMIL, Statement, asmil_parts

__all__ = ["config_of", "read_answers", "read_cost", "run_all", "runs", "statements", "turns"]

NETS = "monai_mil_ext.networks.nets."
ANCHOR = "train#named_handlers#anchor"
BASELINES = ("mean", "ABMIL", "ACMIL")
SLOW, LARGE_BAGS = "TransMIL", "musk2"  # last, so that a stopped experiment has as many whole sets as possible
WITHOUT = {part: cell("QG-MIL", {name: name != part for name in QGMIL_PARTS}) for part in QGMIL_PARTS}


def statements(start: str = "classical: ") -> list[Statement]:
    """Return the claims on macro F1, which start with the name of the data."""
    made = partial(Statement, published="-", metric="bag_macro_f1")
    return [
        made("ASMIL", f"{start}the three parts raise macro F1", plus=(FULL_ASMIL,), minus=(PLAIN_ASMIL,)),
        *asmil_parts(start),
        made("QG-MIL", f"{start}macro F1 is above that of ABMIL", plus=(FULL_QGMIL,), minus=("ABMIL",)),
        made("QG-MIL", f"{start}the four parts raise macro F1", plus=(FULL_QGMIL,), minus=(PLAIN_QGMIL,)),
        *(
            made("QG-MIL", f"{start}macro F1 is lower without the {part}", plus=(FULL_QGMIL,), minus=(other,))
            for part, other in WITHOUT.items()
        ),
    ]


def turns() -> list[list[str]]:
    """List the variants by their turn: QG-MIL with its parts and other networks, ASMIL with its parts, TransMIL."""
    asmil = [cell("ASMIL", dict(zip(ASMIL_PARTS, on, strict=True))) for on in product((True, False), repeat=3)]
    first = [FULL_QGMIL, PLAIN_QGMIL, *WITHOUT.values(), *BASELINES, *read_settings()["networks"]]
    return [first, asmil, [SLOW]]


def runs() -> Iterator[tuple[str, str, Run]]:
    """Yield set, variant and run of each fold: turn by turn on the sets with small bags, then on the other."""
    options = read_settings()["classical"]
    small = [name for name in options["sets"] if name != LARGE_BAGS]
    configs = {variant: config_of(variant) for variant in chain.from_iterable(turns())}
    for sets, turn in product((small, [LARGE_BAGS]), turns()):
        for name, fold, variant in product(sets, range(options["folds"]), turn):
            settings = {"set": name, "model": variant, "fold": fold, "candidates": [configs[variant]]}
            yield name, variant, Run(f"classical/{name}/{variant}/fold_{fold:02d}", settings)


def run_all(folder: Path, data: Path = DATA) -> None:
    """Train what is not finished."""
    prepare_data("bag_classifier", *read_settings()["classical"]["sets"], "--data_root", str(data.resolve()))
    runner = _runner(folder, data)
    for _, _, run in runs():
        runner.run_all([run])


def read_answers(folder: Path, data: Path = DATA) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return the answers by variant and number of the set: of the first folds, those that all variants have finished.

    A turn counts on a set once all its variants have finished as many folds as ``min_folds``. All turns that count have
    the same folds of a set, so that any two variants answer the same bags.
    """
    runner, options = _runner(folder, data), read_settings()["classical"]
    records = {(name, v, run.settings["fold"]): runner.read(run) for name, v, run in runs()}
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for number, name in enumerate(options["sets"]):
        whole = [(turn, _finished_folds(records, name, turn)) for turn in turns()]
        counted = [(turn, folds) for turn, folds in whole if folds >= options["min_folds"]]
        folds = min((folds for _, folds in counted), default=0)
        for variant in chain.from_iterable(turn for turn, _ in counted):
            rows = [row for fold in range(folds) for row in _rows(records[name, variant, fold])]
            found.setdefault(variant, {})[number] = rows
    return found


def _finished_folds(records: Mapping[tuple[str, str, int], Any], name: str, turn: Sequence[str]) -> int:
    """Return how many of the first folds of a set all variants of a turn have finished."""
    folds = range(read_settings()["classical"]["folds"])
    return next((fold for fold in folds if any(records[name, v, fold] is None for v in turn)), len(folds))


def _rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    pairs = zip(record["labels"], record["probabilities"], strict=True)
    return [{"label": label, "probability": value} for label, value in pairs]


def read_cost(folder: Path, data: Path = DATA) -> Cost:
    """Return the cost of what is finished and of the rest, whose folds cost as much as others of their set."""
    runner = _runner(folder, data)
    return Cost.of([(name, runner.read(run)) for name, _, run in runs()])


def _runner(folder: Path, data: Path) -> StudyRunner:
    return StudyRunner(folder, partial(evaluate_fold, data), threads=1)


def config_of(variant: str) -> dict[str, Any]:
    """Return the overrides of ``train.yaml`` of a variant: those of the classical sets, with its parts."""
    options = read_settings()["classical"]
    config: dict[str, Any] = {"learning_rate": options["learning_rate"], "epochs": options["epochs"]}
    if variant in MODELS:
        return {**config, **MODELS[variant]}
    if variant in read_settings()["networks"]:
        network = named_network(variant, hidden_size=64, attention_size=64)
        return {**config, "network_def": network, **term_handlers(variant)}
    if variant.startswith("QG-MIL"):
        network = {"_target_": f"{NETS}QGMIL", "hidden_size": 64, "block": qgmil_block(variant, num_heads=4)}
        return {**config, "network_def": network}
    settings, term = variants()[variant]["settings"], variants()[variant]["anchor"]
    network = {"_target_": f"{NETS}ASMIL", "hidden_size": 64, "token_drop": settings["token_drop"]}
    config |= {"network_def": network, "anchor": settings["anchor"], f"{ANCHOR}#momentum": term["momentum"]}
    if term["target"] == "softmax":
        config[f"{ANCHOR}#loss"] = {"_target_": "experiments.claims.training.SoftmaxKLLoss"}
    return config
