"""Table of ``scripts/benchmark --parts``: where the time of a training step goes, and what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["time_table"]

# this module imports nothing of the package, so that `scripts/results` starts at once


def time_table(result: dict[str, Any]) -> str:
    """Return the Markdown tables of a result: parts of each step, the hardware, what was tried."""
    rows, rates = result["rows"], result["hardware"]
    names = list(dict.fromkeys(name for row in rows for name in row["parts"]))
    lines = [["part", *(row["what"] for row in rows)], ["---", *("--:" for _ in rows)]]
    lines += [[name, *(_part(row, name) for row in rows)] for name in names]
    lines.append(["**all**", *(f"{1e3 * sum(row['parts'].values()):.0f} ms" for row in rows)])
    lines.append(["GFLOP/s of forward, attention and backward", *(f"{row['rate'] / 1e9:.0f}" for row in rows)])
    share = [f"{100 * row['rate'] / 1e9 / rates['float32_gflops']:.0f} %" for row in rows]
    lines.append(["share of the measured rate of matrices", *share])
    half = f" and {rates['bfloat16_gflops']:.0f} in bfloat16" if "bfloat16_gflops" in rates else ""
    hardware = (
        f"In the same run, matrices of 2,048 x 2,048 are multiplied at {rates['float32_gflops']:.0f} GFLOP/s in "
        f"float32{half or ' (bfloat16 not measured: this CPU has no such instructions)'}, and a copy reads and writes "
        f"{rates['copy_gb']:.0f} GB/s.\n"
        f"On {result['machine']}, {result['threads']} thread, load {_range(result['load'])}. {result['note']}"
    )
    tried = [["tried", "plain / changed", "interval", "user"], ["---", "--:", "--:", "--:"]]
    for row in result["tried"]:
        user = " / ".join(f"{1e3 * side['user']:.3g}" for side in row["seconds"].values())
        tried.append([row["what"], f"{row['value']:.2f}", "[{:.2f}, {:.2f}]".format(*row["interval"]), f"{user} ms"])
    return f"{_table(lines)}\n\n{hardware}\n\n### What was tried\n\n{_table(tried)}\n"


def _part(row: dict[str, Any], name: str) -> str:
    if name not in row["parts"]:
        return "-"
    return f"{1e3 * row['parts'][name]:.1f} ms ({100 * row['parts'][name] / sum(row['parts'].values()):.0f} %)"


def _range(load: Sequence[float]) -> str:
    return " to ".join(f"{value:.1f}" for value in load)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
