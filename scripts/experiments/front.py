"""The facts on the front page: each number is taken from a measured result.

``scripts/results`` writes them to README.md, in the blocks ``<!-- results:front -->`` and ``results:picture``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["front_table", "picture_caption"]

SUPERVISED, CENTER, PICTURED = "slice-supervised", "center", "WindowMIL"


def front_table(folder: Path) -> str:
    """Return the Markdown table of the facts, from the results in a folder."""
    facts = {
        "exact": (
            "QG-MIL and Normal Guidance give the values of their authors' code, ABMIL and ASMIL those of their "
            "papers' equations in float64, to 1e-5",
            "[networks](docs/reference/networks.md)",
        ),
        "memory and time": (_cost(folder), "[speed and memory](docs/benchmarks.md)"),
        "localization": _localization(folder),
        "reads and writes": (
            "DICOM, NIfTI, NRRD, whole slides, crops of cells, features of TRIDENT, CLAM and STAMP; "
            "pictures, JSON, NIfTI, DICOM SEG and SR, GeoJSON, pyramidal TIFF",
            "[scans](docs/how-to/scan-results.md), [slides](docs/how-to/slide-predictions.md)",
        ),
        "robust": (_survival(folder), "[reliability](docs/reliability.md)"),
    }
    lines = ["| | measured | page |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| **{name}** | {text} | {page} |" for name, (text, page) in facts.items()), ""])


def picture_caption(folder: Path) -> str:
    """Return how the scan of the picture was chosen, and how often the network finds the lesion of such a scan."""
    row = _rows(folder, "lesions")[PICTURED]
    share, (low, high) = row["values"]["pointing_game"], row["interval_95"]["pointing_game"]
    return (
        f"*Slices of highest attention and the curve of attention of {PICTURED}, trained with one label per scan; "
        "outline and band are the truth. It is the first left-out scan with a lesion of the "
        "[lesion benchmark](docs/lesions.md), real anatomy with an inserted lesion, and not chosen for its result: "
        f"in {100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {row['num_positive']} such scans the slice of "
        "highest attention shows the lesion.*\n"
    )


def _rows(folder: Path, name: str) -> dict[str, Mapping[str, Any]]:
    return {row["name"]: row for row in json.loads((folder / f"{name}.json").read_text())["rows"]}


def _cost(folder: Path) -> str:
    rows = _rows(folder, "benchmarks")
    step = rows["qgmil_train_4000"]
    published, ours = (step["seconds"][side] for side in ("published", "ours"))
    memory, large = (rows[f"qgmil_train_memory_{n}"] for n in (4_000, 10_000))
    return (
        "a training step of QG-MIL with 4,000 instances, the published formulation / ours: "
        f"user seconds of the processor {published['user'] / ours['user']:.2f}, "
        f"all of its seconds {step['value']:.2f}{_ends(step)}, memory {memory['value']:.1f}. "
        "What is computed takes as long; what is saved is memory, and the system's time to create it. "
        f"With 10,000 instances it takes {large['detail']['ours_gib']:.2f} instead of "
        f"{large['detail']['published_gib']:.2f} GiB"
    )


def _ends(row: Mapping[str, Any]) -> str:
    return " [{:.2f}, {:.2f}]".format(*row["interval"]) if row["interval"] else ""


def _localization(folder: Path) -> tuple[str, str]:
    """Name the methods whose difference to the center has an interval above zero, beside the supervised reference."""
    rows = {name.lower(): row for name, row in _rows(folder, "lesions").items()}
    # a variant of a method, whose name has a comma, is no other method
    shown = [row for name, row in rows.items() if name != SUPERVISED and "," not in name and _is_above_center(row)]
    shown.sort(key=lambda row: -row["values"]["instance_auroc"])
    named = ", ".join(f"{row['name']} {_with_interval(row)}" for row in shown[:3]) or "no network above the center"
    text = (
        f"slice AUROC on left-out heads with a lesion, trained with one label per scan: {named}; "
        f"center of the scan {_with_interval(rows[CENTER])}, "
        f"a reference trained with the label of every slice {_with_interval(rows[SUPERVISED])}"
    )
    return text, "[heads with lesions](docs/lesions.md)"


def _is_above_center(row: Mapping[str, Any]) -> bool:
    low, _ = row.get("interval_95", {}).get("difference") or (None, None)
    return low is not None and low > 0


def _with_interval(row: Mapping[str, Any]) -> str:
    value, (low, high) = row["values"]["instance_auroc"], row["interval_95"]["instance_auroc"]
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _survival(folder: Path) -> str:
    result = json.loads((folder / "mutants.json").read_text())
    lived = result["counts"]["survived"]
    return (
        "a killed training continues to the same weights, bit for bit (on CPU); a run over 55 damaged scans ends with "
        f"55 reasons and predicts every good one; tests notice {result['drawn'] - lived} of {result['drawn']} drawn "
        f"changes of the code, and the {lived} others change nothing"
    )
