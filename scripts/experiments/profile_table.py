"""Table of ``scripts/benchmark --profiles``: what both sides of a row spend, and what is left to win."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["profile_table", "sentence"]

# this module imports nothing of the package, so that `scripts/results` starts at once
NAMES = {
    "products": "products of layers",
    "attention": "attention",
    "elementwise": "norms and elementwise kernels",
    "copies": "copies",
    "optimizer": "the optimizer",
    "pages": "the creation of pages",
    "Python": "Python",
}


def profile_table(result: dict[str, Any]) -> str:
    """Return the Markdown table of the parts of both sides, a sentence for each row, and the machines."""
    rows = result["rows"]
    parts = list(rows[0]["sides"][rows[0]["ours"]])
    lines = [["row", "side, ms", "all", *parts, "least"], ["---", "---", *("--:" for _ in parts), "--:", "--:"]]
    for row in rows:
        lines += [_line(row, side, parts) for side in row["sides"]]
    sentences = [f"- {row['what']}: {sentence(row)}" for row in rows]
    places: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        places.setdefault(row["machine"], []).append(row)
    where = [_place(machine, of, len(places) > 1) for machine, of in places.items()]
    where += [f"Not measured yet: {'; '.join(result['unmeasured'])}."] if result["unmeasured"] else []
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, "\n".join(sentences), "\n".join([*where, result["note"]])]) + "\n"


def sentence(row: Mapping[str, Any]) -> str:
    """Return how far a side is from its goal, and what it would have to save, from the seconds of its parts."""
    ours, least = row["sides"][row["ours"]], row["least"]
    spent, allowed = sum(ours.values()), _allowed(row)
    said = f"the goal allows {_ms(allowed)}, and ours takes {_ms(spent)}"
    above = sorted(_above(row).items(), key=lambda item: item[1])
    if spent <= allowed:
        (name, gained), *_ = above
        why = f"; most of the difference is {NAMES[name]}, {_ms(-gained)} less" if gained < 0 else ""
        return f"{said} here, so it is reached on this machine{why}."
    if least >= allowed:
        return f"{said}; its products alone take {_ms(least)} at the measured rate, so no implementation reaches it."
    said += f", {_ms(least)} of it products that both sides need"
    name, most = above[-1]
    end = f"{_ms(spent - allowed)} of the other {_ms(spent - least)} would have to go"
    if most <= 0:
        return f"{said}; {end}, and no part takes more than that of the other side."
    return f"{said}; {end}, and most beyond the other side is {NAMES[name]}, {_ms(most)}."


def _allowed(row: Mapping[str, Any]) -> float:
    """Return the seconds with which our side reaches the goal."""
    if row["compared"] == "alone":
        return float(row["goal"])
    (other,) = (sum(parts.values()) for side, parts in row["sides"].items() if side != row["ours"])
    if row["compared"] == "beyond":
        return float(other + row["goal"])
    return float(other * row["goal"] if row["ours"] == row["over"] else other / row["goal"])


def _above(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what each part of our side takes beyond that of the other side."""
    ours = row["sides"][row["ours"]]
    (other,) = (parts for side, parts in row["sides"].items() if side != row["ours"])
    return {name: seconds - other[name] for name, seconds in ours.items()}


def _line(row: Mapping[str, Any], side: str, parts: list[str]) -> list[str]:
    spent = row["sides"][side]
    first = side == next(iter(row["sides"]))
    cells = [_number(1e3 * sum(spent.values())), *(_number(1e3 * spent[part]) for part in parts)]
    return [row["what"] if first else "", side.replace("_", " "), *cells, _number(1e3 * row["least"])]


def _place(machine: str, rows: list[Mapping[str, Any]], several: bool) -> str:
    loads = [value for row in rows for value in row["load"]]
    rates = [row["gflops"] for row in rows]
    which = "; ".join(row["what"] for row in rows) + ": measured on" if several else "On"
    return (
        f"{which} {machine}, load {min(loads):.1f} to {max(loads):.1f}, {min(rates):.0f} to {max(rates):.0f} GFLOP/s."
    )


def _number(value: float) -> str:
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def _ms(seconds: float) -> str:
    return f"{_number(1e3 * seconds)} ms"
