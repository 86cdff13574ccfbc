"""One page of one or several evaluations: ``python -m scripts.report FOLDER ... --out page.html``.

A folder holds what ``BagResultsSaver`` wrote. ``scripts.protocol`` makes the page of its search, with the slices.
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

from .report_figures import Answers, curves_figure, read_answers, scan_figure, spread_figure
from .table import SHOWN, cell, evaluation, read_rows

__all__ = ["Scan", "page", "write_page"]

Scan = Callable[[str], tuple[np.ndarray, np.ndarray | None]]  # images (N, h, w) in [0, 1] and mask of a case
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr.seed{color:#666;font-size:.9em}img{max-width:100%}"
    ".labels{font-weight:bold}figure{margin:1em 0}"
)


def write_page(path: Path, content: str) -> None:
    """Write a page as a whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def page(
    result: Mapping[str, Any],
    answers: Mapping[str, Mapping[Any, Answers]],
    title: str,
    gallery: int = 2,
    scan: Scan | None = None,
) -> str:
    """HTML with everything inside: the table, curves of localisation, the spread over scans, best and worst scans.

    Args:
        result: of :py:func:`scripts.table.evaluation`.
        answers: of each method and seed, what was said of every slice of every scan.
        title: of the page.
        gallery: how many of the best and of the worst positive scans of each method to show.
        scan: gives the slices of a case; without it only the attention is drawn.
    """
    whole = {name: [one for own in seeds.values() for one in own] for name, seeds in answers.items()}
    found = {name: [one for one in own if one.is_positive] for name, own in whole.items()}
    found = {name: own for name, own in found.items() if own}
    marks = {row["name"]: row["uses_slice_labels"] for row in result["rows"]}
    labels = {name: name + (" (slice labels)" if marks.get(name) else "") for name in found}
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{RESEARCH_USE}</p>", "<h2>Table</h2>", _table(result)]
    if found:
        drawn = {labels[name]: own for name, own in found.items()}
        parts += ["<h2>Finding positive slices</h2>", _image(curves_figure(drawn), "ROC and precision-recall curves")]
        parts += ["<h2>Every scan</h2>", _image(spread_figure(drawn), "slice AUROC of every positive test scan")]
    for name, own in found.items():
        parts += [f"<h2>{html.escape(labels[name])}: best and worst scans</h2>", *_gallery(own, gallery, scan)]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _table(result: Mapping[str, Any]) -> str:
    heads = "".join(f"<th>{head}</th>" for head in ("method", *SHOWN.values()))
    lines = [f"<tr>{heads}</tr>"]
    for row in result["rows"]:
        mark = ' <span class="labels">uses slice labels</span>' if row["uses_slice_labels"] else ""
        cells = "".join(f"<td>{cell(row['values'].get(key), row['sd'].get(key))}</td>" for key in SHOWN)
        lines.append(f"<tr><td>{html.escape(row['name'])}{mark}</td>{cells}</tr>")
        for seed, values in row["seeds"].items():
            cells = "".join(f"<td>{cell(values.get(key))}</td>" for key in SHOWN)
            lines.append(f'<tr class="seed"><td>{html.escape(str(seed))}</td>{cells}</tr>')
    sd = "Mean ± sd over seeds: sample sd (n - 1) of scan values, population sd (n) of slice values."
    rest = [f"{key}: {result[key]}." for key in ("protocol", "selection", "split") if key in result]
    return f"<table>{''.join(lines)}</table><p>{html.escape(' '.join([sd, *rest]))}</p>"


def _gallery(own: Sequence[Answers], count: int, scan: Scan | None) -> list[str]:
    ordered = sorted(own, key=lambda one: (-one.auroc, one.case_id))
    best, rest = ordered[:count], ordered[count:]
    worst = rest[::-1][:count]
    return [
        _image(_scan_figure(one, scan), f"{kind}: {one.case_id}, slice AUROC {one.auroc:.3f}")
        for kind, chosen in (("best", best), ("worst", worst))
        for one in chosen
    ]


def _scan_figure(one: Answers, scan: Scan | None) -> Figure:
    title = f"{one.case_id}, slice AUROC {one.auroc:.3f}"
    if scan is None:
        return scan_figure(one, title)
    images, mask = scan(one.case_id)
    if mask is None:  # labels of slices without a mask: the whole slice is marked
        mask = np.broadcast_to(one.label[:, None, None], images.shape)
    return plot_slice_scores(one.attention, one.position, images[one.slice_index], mask[one.slice_index], title=title)


def _image(figure: Figure, text: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    data = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(text)
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="Evaluation")
    parser.add_argument("--gallery", type=int, default=2)
    args = parser.parse_args()
    rows = {folder.name: {"all": read_rows(folder)} for folder in args.folders}
    answers = {folder.name: {"all": read_answers(folder)} for folder in args.folders}
    result = evaluation(rows, dict.fromkeys(rows, False), [])
    write_page(args.out, page(result, answers, args.title, args.gallery))


if __name__ == "__main__":
    _main()
