"""Table of ``scripts/benchmark``: a part for each group of rows, with the columns that it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["benchmark_table"]

# this module imports nothing of the package, so that `scripts/results` starts at once
COLUMNS = ("what", "goal", "measured", "interval", "user", "wall", "note")
OPTIONAL = ("interval", "user", "wall", "note")
UNITS = {"gib": "GiB", "kib": "KiB", "s": "s"}


def benchmark_table(result: dict[str, Any]) -> str:
    """Return the Markdown tables of a result: one row per goal, then the machines."""
    machines, parts = _machines(result), []
    for group in dict.fromkeys(row["group"] for row in result["rows"]):
        cells = [_cells(row, machines) for row in result["rows"] if row["group"] == group]
        columns = [name for name in COLUMNS if name not in OPTIONAL or any(row[name] for row in cells)]
        lines = [columns, ["---" if name in ("what", "goal", "note") else "--:" for name in columns]]
        lines += [[row[name] or "-" for name in columns] for row in cells]
        parts.append("\n".join([f"### {group}", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    conditions = f"{_threads(result)}{_load(result)}; {versions}."
    if len(machines) == 1:
        where = f"On {machines[0]}{conditions}"
    else:
        numbered = "\n".join(f"{number}. {machine}" for number, machine in enumerate(machines, 1))
        where = f"Rows without a number of a machine were measured on the first:\n\n{numbered}\n\nWith{conditions[1:]}"
    return "\n\n".join([*parts, f"{where}\n{result['note']}"]) + "\n"


def _machines(result: Mapping[str, Any]) -> list[str]:
    """Return the machines of the rows, the one of most rows first."""
    counts = Counter(row.get("machine", result["machine"]) for row in result["rows"])
    return [machine for machine, _ in counts.most_common()]


def verdict(row: Mapping[str, Any]) -> str:
    """Return whether the whole interval of a row, or its value, reaches its goal: ``met``, ``open`` or ``missed``."""
    if row["goal"] is None:
        return "met"
    sign = -1 if row["at_most"] else 1
    reached = {sign * value >= sign * row["goal"] for value in row["interval"] or [row["value"]]}
    return "open" if len(reached) > 1 else "met" if reached == {True} else "missed"


def _cells(row: Mapping[str, Any], machines: Sequence[str]) -> dict[str, str]:
    goal = "-" if row["goal"] is None else f"{'<=' if row['at_most'] else '>='} {row['goal']:g}"
    goal += f" ({row['stretch']:g})" if row["stretch"] else ""
    value, found = f"{row['value']:.2f}", verdict(row)
    measured = {"met": value, "open": f"{value}, open", "missed": f"**{value}, missed**"}[found]
    interval = "" if row["interval"] is None else "[{:.2f}, {:.2f}]".format(*row["interval"])
    sides = list(row["seconds"].values())[:2]  # over and under; others are bounds
    times = {kind: _seconds(side[kind] for side in sides) for kind in ("user", "system", "wall")}
    note = _note(row, machines)
    return {"what": row["what"], "goal": goal, "measured": measured, "interval": interval, **times, "note": note}


def _seconds(values: Any) -> str:
    shown = [f"{value:.3g}" for value in values if value is not None]
    return f"{' / '.join(shown)} s" if shown else ""


def _note(row: Mapping[str, Any], machines: Sequence[str]) -> str:
    """Return what else is known: system seconds, spread, sizes, the bound, threads other than two, the machine."""
    sides = [side for side in list(row["seconds"].values())[:2] if side["system"] is not None]
    notes = ["wall"] if row["clock"] == "wall" else []
    notes += [f"system {_seconds(side['system'] for side in sides)}"] if sides else []
    spreads = [side["spread"] for side in sides if "spread" in side]
    notes += [f"spread {100 * max(spreads):.0f} %"] if spreads else []
    sizes = [(*key.rpartition("_")[::2], size) for key, size in row["detail"].items() if not key.startswith("bound")]
    notes += [f"{name.replace('_', ' ')} {size:g} {UNITS[unit]}" for name, unit, size in sizes if unit in UNITS]
    notes += [f"bound {row['bound']:.2f}"] if row["bound"] is not None else []
    notes += ["one thread"] if row["threads"] == 1 else []
    number = machines.index(row.get("machine", machines[0])) + 1
    notes += [f"machine {number}"] if number > 1 else []
    return "; ".join(notes)


def _threads(result: Mapping[str, Any]) -> str:
    numbers = sorted({row["threads"] for row in result["rows"]} - {None})
    return f", {' or '.join(map(str, numbers))} threads" if numbers else ""


def _load(result: Mapping[str, Any]) -> str:
    loads = [value for row in result["rows"] for value in row.get("load") or []]
    return f", load {min(loads):.1f} to {max(loads):.1f}" if loads else ""
