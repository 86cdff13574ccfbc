"""Tests of the page of an evaluation: numbers, figures, and no external resources."""

import base64
import csv
import json
import re

import numpy as np
import pytest

from monai_mil_ext.utils import RESEARCH_USE


def write_evaluation(folder, quality, scans=4, labeled=True):
    """Write the files of ``BagResultsSaver`` for scans of ten slices; lesions get attention by ``quality``."""
    from monai_mil_ext.metrics import bag_report, instance_values

    folder.mkdir()
    rng, rows, lines = np.random.default_rng(0), [], []
    import torch

    for k in range(scans):
        label = np.zeros(10, dtype=int)
        label[2 : 2 + 2 * (k % 2) * 2] = 1
        attention = rng.random(10) * 0.1 + quality * label
        attention /= attention.sum()
        values = instance_values(torch.from_numpy(attention), torch.from_numpy(label) if labeled else None)
        base = {"case_id": f"scan<{k}>", "patient": f"p{k}", "label": int(label.any())}
        rows.append({**base, "probability": [0.2 + 0.15 * (k % 5)], **values})
        lines += [
            {"case_id": base["case_id"], "slice_index": n, "position": 5.0 * n, "attention": a}
            | ({"instance_label": y} if labeled else {})
            for n, (y, a) in enumerate(zip(label.tolist(), attention.tolist(), strict=True))
        ]
    (folder / "report.json").write_text(json.dumps(bag_report(rows, num_samples=5)))
    for name, content in (("bags.csv", rows), ("instances.csv", lines)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    return folder


def test_report_of_two_runs_is_one_self_contained_page(tmp_path):
    from experiments.reproduce import main

    folders = [write_evaluation(tmp_path / name, quality) for name, quality in (("poor", 0.0), ("good", 1.0))]
    out = tmp_path / "page.html"
    main(["report", *map(str, folders), "--out", str(out), "--gallery", "1"])
    text = out.read_text()
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', text)
    assert [name.split(",")[0].split(":")[0] for name, _ in pictures] == [
        "ROC and precision-recall curves",
        "slice AUROC of every positive test scan",
        *["best", "worst"] * 2,
    ]
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in pictures)
    assert RESEARCH_USE in text
    assert "<td>1.000 [1.000, 1.000]</td>" in text  # of the good run
    assert ">all<" not in text
    assert "over seeds" not in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "scan&lt;1&gt;" in text
    assert "scan<1" not in text  # names are text, not tags
    assert str(tmp_path) not in text


def test_report_of_scans_without_slice_labels_has_values_of_scans_only(tmp_path):
    from experiments.reproduce import main

    folders = [write_evaluation(tmp_path / name, 0.5, labeled=False) for name in ("one", "two")]
    main(["report", *map(str, folders), "--out", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text()
    heads, *rows = re.findall(r"<tr.*?</tr>", text)
    assert re.findall("<th>(.*?)</th>", heads) == ["method", "bag AUROC", "bag AUPRC"]
    assert [re.findall("<td>(.*?)</td>", row)[0] for row in rows] == ["one", "two"]  # no center, no seed
    assert all("[" in cell for row in rows for cell in re.findall("<td>(.*?)</td>", row)[1:])
    assert "<img" not in text


def test_compare_methods_without_slice_labels_has_no_comparison(tmp_path):
    from experiments.ct_protocol.table import compare_methods, format_table, read_rows

    rows = {name: {7: read_rows(write_evaluation(tmp_path / name, 0.5, labeled=False))} for name in ("a", "b")}
    result = compare_methods(rows, dict.fromkeys(rows, False), [("a", "b")], num_samples=5)
    assert [row["name"] for row in result["rows"]] == ["a", "b"]
    assert result["comparisons"] == []
    assert "slice AUROC" not in format_table(result)


def test_make_page_shows_the_slices_of_the_best_and_worst_scans(tmp_path):
    from experiments.ct_protocol.figures import read_scans
    from experiments.ct_protocol.report import make_page
    from experiments.ct_protocol.table import compare_methods, read_rows

    folder, cases = write_evaluation(tmp_path / "run", 0.0, scans=12), []
    scans = {"one": {7: read_scans(folder)}}
    result = compare_methods({"one": {7: read_rows(folder)}}, {"one": True}, [], num_samples=5)

    def read_slices(case):
        cases.append(case)
        return np.zeros((10, 4, 4)), None

    text = make_page(result, scans, "A page", gallery=2, read_slices=read_slices)
    positive = sorted((scan for scan in scans["one"][7] if scan.is_positive), key=lambda scan: -scan.auroc)
    assert len(positive) == 6
    assert cases[:2] == [scan.case_id for scan in positive[:2]]
    assert {*cases[2:]} == {scan.case_id for scan in positive[-2:]}
    assert "one (slice labels): best and worst scans" in text
    assert '<span class="labels">uses slice labels</span>' in text
    assert "7</td>" in text


def test_pick_scans_gives_no_scan_twice(tmp_path):
    from experiments.ct_protocol.figures import read_scans
    from experiments.ct_protocol.report import pick_scans

    positive = [scan for scan in read_scans(write_evaluation(tmp_path / "run", 1.0)) if scan.is_positive]
    assert len(positive) == 2
    assert len(pick_scans(positive, 2)) == 2
    assert len(pick_scans(positive, 1)) == 2


def test_make_page_of_a_method_without_slices_has_only_a_table(tmp_path):
    from experiments.ct_protocol.report import make_page
    from experiments.ct_protocol.table import compare_methods, read_rows

    folder = write_evaluation(tmp_path / "run", 1.0)
    result = compare_methods(
        {"bag-level oracle": {1: read_rows(folder)}}, {"bag-level oracle": True}, [], num_samples=5
    )
    text = make_page(result, {"bag-level oracle": {1: []}}, "A page")
    assert "<table>" in text
    assert "<img" not in text


def test_curves_figure_matches_the_metric_and_its_styles_differ_without_color(tmp_path):
    from experiments.ct_protocol.figures import curves_figure, read_scans, spread_figure

    scans = {
        name: [scan for scan in read_scans(write_evaluation(tmp_path / name, quality)) if scan.is_positive]
        for name, quality in (("poor", 0.0), ("good", 1.0))
    }
    roc, precision = curves_figure(scans).axes
    poor, good, center = roc.lines
    assert good.get_ydata() == pytest.approx(np.ones(201))
    area = np.trapezoid(poor.get_ydata(), poor.get_xdata())
    assert area == pytest.approx(np.mean([scan.auroc for scan in scans["poor"]]), abs=0.01)
    assert poor.get_linestyle() != good.get_linestyle()
    assert center.get_label() == "center of the scan"
    assert len(precision.lines) == 3
    dots = [line for line in spread_figure(scans).axes[0].lines if line.get_marker() == "."]
    assert [sorted(line.get_xdata()) for line in dots] == [
        pytest.approx(sorted(scan.auroc for scan in of_method)) for of_method in scans.values()
    ]
