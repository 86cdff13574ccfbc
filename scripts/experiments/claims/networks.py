"""Tables of networks on one kind of data, each with its paired differences to ABMIL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .contrasts import Draws, contrast, estimate
from .settings import read_settings
from .verdicts import NOT_RUN, verdict

__all__ = ["common_blocks", "networks_result"]

REFERENCE = "ABMIL"
HEADS = {
    "bag_auroc": "AUROC",
    "bag_macro_f1": "macro F1",
    "instance_auroc": "instance AUROC",
    "received_auroc": "instance AUROC, received",
    "entropy_ratio": "entropy",
}
VERDICTS = {"reproduced": "above", "contradicted": "below"}  # on the claim that AUROC is above that of ABMIL
NOTHING = {"name": "all networks", "values": {}, "verdict": NOT_RUN}
COMPARED = ("bag_auroc", "bag_macro_f1", "instance_auroc")
LESS = "_less_reference"
Answers = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]


def networks_result(names: Sequence[str], answers: Answers, note: str) -> dict[str, Any]:
    """Return the table of some networks: measures, and AUROC, macro F1 and localization less those of ABMIL.

    Args:
        names: networks in the order of the rows.
        answers: rows of bags by network and block, which is a seed or a set; only what is finished.
        note: sentence below the table.
    """
    blocks = common_blocks(names, answers)
    rows = [_row(name, answers.get(name, {}), answers[REFERENCE], blocks) for name in names] if blocks else [NOTHING]
    heads = {**HEADS, **{key + LESS: f"{HEADS[key]} less {REFERENCE}" for key in COMPARED}}
    return {"heads": heads, "columns": ["verdict"], "rows": rows, "blocks": blocks, "note": note}


def common_blocks(names: Sequence[str], answers: Answers) -> list[int]:
    """Return the blocks of all networks that have as many as a verdict needs, or as any has; none without ABMIL.

    Example:
        >>> answers = {"ABMIL": dict.fromkeys((1, 2, 3, 4), []), "a": dict.fromkeys((2, 3, 4), []), "b": {1: []}}
        >>> common_blocks(["ABMIL", "a", "b"], answers)
        [2, 3, 4]
    """
    found = {name: set(answers.get(name, ())) for name in names}
    least = min(read_settings()["min_seeds"], max(map(len, found.values())))
    if not least or len(found[REFERENCE]) < least:
        return []
    return sorted(set.intersection(*(blocks for blocks in found.values() if len(blocks) >= least)))


def _row(name: str, own: Mapping[int, Any], reference: Mapping[int, Any], blocks: Sequence[int]) -> dict[str, Any]:
    if not set(blocks) <= set(own):
        return {"name": name, "values": {}, "interval_95": {}, "verdict": NOT_RUN}
    rows, others = ({block: of[block] for block in blocks} for of in (own, reference))
    draws = Draws({block: len(bags) for block, bags in rows.items()}, read_settings()["num_samples"])
    row: dict[str, Any] = {"name": name, "values": {}, "interval_95": {}, "verdict": "-"}
    for key in HEADS:
        if not _has(rows, key):
            continue
        row["values"][key], row["interval_95"][key] = estimate(rows, key, draws)
        if key in COMPARED and name != REFERENCE and _has(others, key):
            found = contrast([rows], [others], key, draws)
            row["values"][key + LESS], row["interval_95"][key + LESS] = found["difference"], found["interval"]
            row.setdefault("blocks", {})[key] = found["seeds"]
            if key == "bag_auroc":
                decided = verdict(1, found["interval"], len(blocks))
                row["verdict"] = VERDICTS.get(decided, decided)
    return row


def _has(rows: Mapping[int, Sequence[Mapping[str, Any]]], key: str) -> bool:
    name = "probability" if key.startswith("bag_") else key
    return all(any(name in bag for bag in bags) for bags in rows.values())
