"""HTML page of one or several evaluations: ``scripts/reproduce report FOLDER ... --out page.html``.

A folder contains the files of ``BagResultsSaver``. ``scripts/reproduce ct_protocol`` writes the page of its search,
which also shows slices.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from monai_mil_ext.utils import RESEARCH_USE, atomic_path
from monai_mil_ext.visualize import plot_slice_scores

from .figures import ScanScores, curves_figure, read_scans, scan_figure, spread_figure
from .table import compare_methods, format_cell, read_rows, shown_values

__all__ = ["ReadSlices", "main", "make_page", "pick_scans", "write_page"]

ReadSlices = Callable[[str], tuple[np.ndarray, np.ndarray | None]]  # images (N, h, w) in [0, 1] and mask of a case
EVALUATION = "all"  # in the place of a seed, for a page of single evaluations
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr.seed{color:#666;font-size:.9em}img{max-width:100%}"
    ".labels{font-weight:bold}figure{margin:1em 0}"
)


def write_page(path: Path, content: str) -> None:
    """Write a page atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def make_page(
    result: Mapping[str, Any],
    scans: Mapping[str, Mapping[Any, Sequence[ScanScores]]],
    title: str,
    gallery: int = 2,
    read_slices: ReadSlices | None = None,
) -> str:
    """Return a self-contained HTML page: table, localization curves, spread over scans, best and worst scans.

    Args:
        result: result of :py:func:`experiments.ct_protocol.table.compare_methods`.
        scans: scores of every slice of every scan, by method and seed.
        title: title of the page.
        gallery: number of best and of worst positive scans of each method.
        read_slices: function that reads the slices of a case; without it only attention is drawn.
    """
    positive = {
        name: [scan for of_seed in seeds.values() for scan in of_seed if scan.is_positive]
        for name, seeds in scans.items()
    }
    positive = {name: of_method for name, of_method in positive.items() if of_method}
    marks = {row["name"]: row["uses_slice_labels"] for row in result["rows"]}
    labels = {name: name + (" (slice labels)" if marks.get(name) else "") for name in positive}
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{RESEARCH_USE}</p>", "<h2>Table</h2>", _table(result)]
    if positive:
        drawn = {labels[name]: of_method for name, of_method in positive.items()}
        parts += ["<h2>Finding positive slices</h2>", _image(curves_figure(drawn), "ROC and precision-recall curves")]
        parts += ["<h2>Every scan</h2>", _image(spread_figure(drawn), "slice AUROC of every positive test scan")]
    for name, of_method in positive.items():
        parts += [f"<h2>{html.escape(labels[name])}: best and worst scans</h2>"]
        parts += _gallery(of_method, gallery, read_slices)
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _table(result: Mapping[str, Any]) -> str:
    shown = shown_values(result)
    heads = "".join(f"<th>{head}</th>" for head in ("method", *shown.values()))
    lines = [f"<tr>{heads}</tr>"]
    for row in result["rows"]:
        mark = ' <span class="labels">uses slice labels</span>' if row["uses_slice_labels"] else ""
        interval = row.get("interval_95") or {}
        cells = "".join(
            f"<td>{format_cell(row['values'].get(key), row['sd'].get(key), interval.get(key))}</td>" for key in shown
        )
        lines.append(f"<tr><td>{html.escape(row['name'])}{mark}</td>{cells}</tr>")
        for seed, values in row["seeds"].items() if row["seeds"].keys() != {EVALUATION} else ():
            cells = "".join(f"<td>{format_cell(values.get(key))}</td>" for key in shown)
            lines.append(f'<tr class="seed"><td>{html.escape(str(seed))}</td>{cells}</tr>')
    facts = [f"{key}: {result[key]}." for key in ("protocol", "selection", "split") if key in result]
    return f"<table>{''.join(lines)}</table><p>{html.escape(' '.join([*_explain(result['rows']), *facts]))}</p>"


def _explain(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the numbers after a value are."""
    several, alone = any(len(row["seeds"]) > 1 for row in rows), any(row.get("interval_95") for row in rows)
    sd = "Mean ± sd over seeds: sample sd (n - 1) of scan values, population sd (n) of slice values."
    return [sd] * several + ["In brackets: 95 % interval by bootstrap."] * alone


def pick_scans(scans: Sequence[ScanScores], count: int) -> list[tuple[str, ScanScores]]:
    """Return the ``count`` scans with the best and the worst slice AUROC, none of them twice."""
    ordered = sorted(scans, key=lambda scan: (-scan.auroc, scan.case_id))
    best, rest = ordered[:count], ordered[count:]
    return [*(("best", scan) for scan in best), *(("worst", scan) for scan in rest[::-1][:count])]


def _gallery(scans: Sequence[ScanScores], count: int, read_slices: ReadSlices | None) -> list[str]:
    return [
        _image(_scan_figure(scan, read_slices), f"{kind}: {scan.case_id}, slice AUROC {scan.auroc:.3f}")
        for kind, scan in pick_scans(scans, count)
    ]


def _scan_figure(scan: ScanScores, read_slices: ReadSlices | None) -> Figure:
    title = f"{scan.case_id}, slice AUROC {scan.auroc:.3f}"
    if read_slices is None:
        return scan_figure(scan, title)
    images, mask = read_slices(scan.case_id)
    if mask is None:  # slice labels without a mask: mark whole slices
        mask = np.broadcast_to(scan.label[:, None, None], images.shape)
    shown = scan.slice_index
    return plot_slice_scores(scan.attention, scan.position, images[shown], mask[shown], title=title)


def _image(figure: Figure, text: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    data = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(text)
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="Evaluation")
    parser.add_argument("--gallery", type=int, default=2)
    args = parser.parse_args(words)
    rows = {folder.name: {EVALUATION: read_rows(folder)} for folder in args.folders}
    scans = {folder.name: {EVALUATION: read_scans(folder)} for folder in args.folders}
    result = compare_methods(rows, dict.fromkeys(rows, False), [])
    write_page(args.out, make_page(result, scans, args.title, args.gallery))
