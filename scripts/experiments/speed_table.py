"""Table of ``scripts/benchmark``: a part for each group of rows, with the columns that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["benchmark_table"]

# this module imports nothing of the package, so that `scripts/results` starts at once
COLUMNS = ("what", "goal", "measured", "interval", "user", "wall", "note")
OPTIONAL = ("interval", "user", "wall", "note")
UNITS = {"gib": "GiB", "kib": "KiB", "s": "s"}


def benchmark_table(result: dict[str, Any]) -> str:
    """Return the Markdown tables of a result: one row per goal, then the machine."""
    parts = []
    for group in dict.fromkeys(row["group"] for row in result["rows"]):
        cells = [_cells(row) for row in result["rows"] if row["group"] == group]
        columns = [name for name in COLUMNS if name not in OPTIONAL or any(row[name] for row in cells)]
        lines = [columns, ["---" if name in ("what", "goal", "note") else "--:" for name in columns]]
        lines += [[row[name] or "-" for name in columns] for row in cells]
        parts.append("\n".join([f"### {group}", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    machine = f"On {result['machine']}{_threads(result)}{_load(result)}; {versions}."
    return "\n\n".join([*parts, f"{machine}\n{result['note']}"]) + "\n"


def verdict(row: Mapping[str, Any]) -> str:
    """Return whether the whole interval of a row, or its value, reaches its goal: ``met``, ``open`` or ``missed``."""
    if row["goal"] is None:
        return "met"
    sign = -1 if row["at_most"] else 1
    reached = {sign * value >= sign * row["goal"] for value in row["interval"] or [row["value"]]}
    return "open" if len(reached) > 1 else "met" if reached == {True} else "missed"


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    goal = "-" if row["goal"] is None else f"{'<=' if row['at_most'] else '>='} {row['goal']:g}"
    goal += f" ({row['stretch']:g})" if row["stretch"] else ""
    value, found = f"{row['value']:.2f}", verdict(row)
    measured = {"met": value, "open": f"{value}, open", "missed": f"**{value}, missed**"}[found]
    interval = "" if row["interval"] is None else "[{:.2f}, {:.2f}]".format(*row["interval"])
    sides = list(row["seconds"].values())[:2]  # over and under; others are bounds
    times = {kind: _seconds(side[kind] for side in sides) for kind in ("user", "system", "wall")}
    return {"what": row["what"], "goal": goal, "measured": measured, "interval": interval, **times, "note": _note(row)}


def _seconds(values: Any) -> str:
    shown = [f"{value:.3g}" for value in values if value is not None]
    return f"{' / '.join(shown)} s" if shown else ""


def _note(row: Mapping[str, Any]) -> str:
    """Return what else is known: system seconds, spread, sizes, the bound, threads other than two."""
    sides = [side for side in list(row["seconds"].values())[:2] if side["system"] is not None]
    notes = ["wall"] if row["clock"] == "wall" else []
    notes += [f"system {_seconds(side['system'] for side in sides)}"] if sides else []
    spreads = [side["spread"] for side in sides if "spread" in side]
    notes += [f"spread {100 * max(spreads):.0f} %"] if spreads else []
    sizes = [(*key.rpartition("_")[::2], size) for key, size in row["detail"].items() if not key.startswith("bound")]
    notes += [f"{name.replace('_', ' ')} {size:g} {UNITS[unit]}" for name, unit, size in sizes if unit in UNITS]
    notes += [f"bound {row['bound']:.2f}"] if row["bound"] is not None else []
    notes += ["one thread"] if row["threads"] == 1 else []
    return "; ".join(notes)


def _threads(result: Mapping[str, Any]) -> str:
    numbers = sorted({row["threads"] for row in result["rows"]} - {None})
    return f", {' or '.join(map(str, numbers))} threads" if numbers else ""


def _load(result: Mapping[str, Any]) -> str:
    loads = [value for row in result["rows"] for value in row.get("load") or []]
    return f", load {min(loads):.1f} to {max(loads):.1f}" if loads else ""
