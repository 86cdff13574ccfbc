"""Tables of the claims and of the variants, from the answers of finished trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .contrasts import Draws, contrast
from .settings import read_settings
from .statements import Statement
from .verdicts import NOT_RUN, RULE, verdict

__all__ = ["claim_row", "claims_result", "variants_result"]

Answers = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]  # of each variant, by seed: only what is finished
UNITS = {
    "instance_auroc": "slice AUROC",
    "bag_auroc": "bag AUROC",
    "bag_macro_f1": "macro F1",
    "entropy_ratio": "entropy",
    "attention_jsd": "JSD",
    "sd_macro_f1": "sd of macro F1",
}
COLUMNS = {
    "paper": "method",
    "claim": "claim",
    "published": "published",
    "ours": "ours: difference [95 % interval]",
    "by_seed": "by seed",
    "verdict": "verdict",
}
VARIANT_HEADS = {
    "bag_macro_f1": "macro F1",
    "sd_macro_f1": "sd of macro F1 over seeds",
    "bag_auroc": "bag AUROC",
    "instance_auroc": "slice AUROC",
    "received_auroc": "slice AUROC, received",
    "entropy_ratio": "entropy",
    "attention_jsd": "JSD, millionths of a nat",
}


def claim_row(statement: Statement, answers: Answers, blocks: str = "seeds") -> dict[str, Any]:
    """Return the row of a claim, of the seeds that all its variants have finished."""
    names = (*statement.plus, *statement.minus)
    common = set.intersection(*(set(answers.get(name, {})) for name in names))
    row = {key: getattr(statement, key) for key in ("paper", "claim", "published")}
    if not common:
        return {**row, "ours": NOT_RUN, "by_seed": "-", "verdict": NOT_RUN, "num_seeds": 0}
    seeds = sorted(common)
    sizes = {seed: len(answers[names[0]][seed]) for seed in seeds}
    draws = Draws(sizes, read_settings()["num_samples"])
    plus, minus = ([answers[name] for name in side] for side in (statement.plus, statement.minus))
    found = contrast(plus, minus, statement.metric, draws)
    interval = found["interval"]
    decided = verdict(statement.sign, interval, len(seeds))
    decided += f" ({len(seeds)} {blocks} finished)" if decided == NOT_RUN else ""
    single = statement.metric == "sd_macro_f1"
    return {
        **row,
        "ours": _difference(statement.metric, found),
        "by_seed": "-" if single else ", ".join(_signed(value) for value in found["seeds"]),
        "verdict": decided,
        "num_seeds": len(seeds),
        "found": found,
    }


def claims_result(
    statements: Sequence[Statement], answers: Answers, fixed: Sequence[Mapping[str, str]] = (), note: str = ""
) -> dict[str, Any]:
    """Return the table of the claims.

    Args:
        statements: claims to test.
        answers: answers of what is finished.
        fixed: rows of claims that nothing here tests.
        note: sentence before the rule.
    """
    rule = RULE.format(**read_settings())
    rows = [claim_row(statement, answers) for statement in statements] + [dict(row) for row in fixed]
    return {"kind": "claims", "columns": COLUMNS, "rows": rows, "note": f"{note}\n\n{rule}".strip()}


def variants_result(names: Sequence[str], answers: Answers, note: str, num_seeds: int) -> dict[str, Any]:
    """Return the table of some variants: means over the finished seeds."""
    rows = []
    for name in names:
        finished = answers.get(name, {})
        state = str(num_seeds) if len(finished) == num_seeds else f"{NOT_RUN}: {num_seeds - len(finished)}"
        rows.append({"name": name, "values": _values(finished), "num_seeds": state})
    shown = {key: head for key, head in VARIANT_HEADS.items() if any(row["values"].get(key) for row in rows)}
    return {"heads": shown, "columns": ["num_seeds"], "rows": rows, "note": note}


def _values(finished: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, float | None]:
    if not finished:
        return {}
    draws = Draws({seed: len(rows) for seed, rows in finished.items()}, 0)
    values = {}
    for key in VARIANT_HEADS:
        with np.errstate(all="ignore"):
            value = contrast([finished], [finished], key, draws)["plus"] if _has(finished, key) else float("nan")
        value = 1e6 * value if key == "attention_jsd" else value
        values[key] = value if np.isfinite(value) else None
    return values


def _has(finished: Mapping[int, Sequence[Mapping[str, Any]]], key: str) -> bool:
    name = {"bag_macro_f1": "probability", "bag_auroc": "probability", "sd_macro_f1": "probability"}.get(key, key)
    return all(any(name in row for row in rows) for rows in finished.values())


def _difference(metric: str, found: Mapping[str, Any]) -> str:
    form = "{:{sign}.1e}" if metric == "attention_jsd" else "{:{sign}.3f}"
    plus, minus = (form.format(found[side], sign="") for side in ("plus", "minus"))
    difference, *ends = (form.format(v, sign="+") for v in (found["difference"], *(found["interval"] or ())))
    return f"{UNITS[metric]} {plus} for {minus}: {difference}" + (f" [{', '.join(ends)}]" if ends else "")


def _signed(value: float) -> str:
    return f"{value:+.0e}" if 0 < abs(value) < 0.001 else f"{value:+.2f}"
