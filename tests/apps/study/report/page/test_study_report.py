"""Tests of the report of a study."""

import csv
import html
import io
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report import ReportFacts, write_report
from tests.apps.study.report.made_facts import made_facts
from tests.apps.study.report.page.report_page import ReportPage

HOSTILE = ("<script>alert(1)</script>", "\"quoted' & $x_1$ ]]> {{ 7 * 7 }}", "_private", "=1+1")


def page_of(facts, folder, **options):
    return ReportPage(write_report(facts, folder, **options).read_text())


@pytest.mark.parametrize("kind", ["classification", "multilabel", "ordinal", "regression", "survival", "cox"])
def test_write_report_is_one_whole_page(kind, tmp_path):
    path = write_report(made_facts(kind, 1, slides=kind == "ordinal", pictures=True), tmp_path)
    page = ReportPage(path.read_text())
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    anchors = [link for link in page.links if link.startswith("#")]
    assert anchors == page.links  # no other file, no address
    assert {link[1:] for link in anchors} <= {*page.ids}
    assert {source[:22] for source in page.sources} == {"data:image/png;base64,"}
    assert page.counts["script"] == 1
    assert page.counts["img"] == 20
    assert path.stat().st_size < 1_000_000
    assert "research use only" in path.read_text().lower()


def test_every_figure_says_what_it_shows(tmp_path):
    page = page_of(made_facts("survival", 1), tmp_path)
    assert page.counts["svg"] == page.counts["figure"] == page.counts["details"]
    assert any(text.startswith("Kaplan-Meier curves by risk of ABMIL; survival at the end") for text in page.labels)


def test_json_and_tables_have_all_numbers(tmp_path):
    facts = made_facts(clinical=False)
    write_report(facts, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    value = facts.summaries["ABMIL"]["values"]["auroc"]["value"]
    assert content["summaries"]["ABMIL"]["values"]["auroc"]["value"] == value
    assert content["headline"].startswith("Highest AUROC of two methods")
    assert content["task"] == {"kind": "classification", "class_names": ["benign", "malignant"], "bin_edges": []}
    assert "attention" not in content["cases"][0]
    with (tmp_path / "tables" / "methods.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(next(r for r in rows if (r["method"], r["metric"]) == ("ABMIL", "auroc"))["value"]) == value
    assert len(list(csv.DictReader((tmp_path / "tables" / "cases.csv").open()))) == 60


def test_two_reports_of_the_same_facts_are_equal(tmp_path):
    first, second = (write_report(made_facts("cox", 1), tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_tables_of_an_earlier_report_are_removed(tmp_path):
    write_report(made_facts("cox", 1), tmp_path)
    assert (tmp_path / "tables" / "effects.csv").exists()
    write_report(made_facts("cox", 1, clinical=False), tmp_path)
    assert not (tmp_path / "tables" / "effects.csv").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_texts(name, tmp_path):
    facts = made_facts(names=("no", name), num_methods=1)
    rows = [{**row, "case_id": name, "site": name, "truth": name, "patient": name} for row in facts.cases]
    facts.summaries["ABMIL"]["sites"][0]["name"] = name
    given = {
        "summaries": {name: facts.summaries["ABMIL"], "other": None},
        "histories": {name: facts.histories["ABMIL"]},
    }
    cohort = dict(facts.cohort) | {"sites": {name: {name: 3}}, "left_out": [{"case_id": name, "reason": name}]}
    facts = replace(facts, title=name, cases=rows, notes=[name], cohort=cohort, **given)
    path = write_report(facts, tmp_path)
    page = ReportPage(path.read_text())
    assert page.open == []
    assert page.counts["script"] == 1
    assert page.tables["case-table"][1][0] == name
    assert name in page.texts[:3]
    assert "49" not in page.texts
    with (tmp_path / "tables" / "cases.csv").open() as file:
        assert next(csv.DictReader(file))["case_id"] == name.replace("=", "'=")


def test_cases_with_a_viewer_link_to_it(tmp_path):
    facts = made_facts("cox", 1)
    assert "have a viewer" not in write_report(facts, tmp_path).read_text()
    case = facts.cases[3]["case_id"]
    viewer = tmp_path / "viewers" / case / "viewer" / "index.html"
    viewer.parent.mkdir(parents=True)
    viewer.touch()
    path = write_report(facts, tmp_path)
    page = ReportPage(path.read_text())
    assert [link for link in page.links if link.startswith("viewers/")] == [f"viewers/{case}/viewer/index.html"]
    assert case in [cells[0] for cells in page.tables["case-table"]]
    assert "Cases with a link have a viewer; it shows the prediction of one inference" in path.read_text()


def test_no_path_reaches_the_report(tmp_path):
    path = write_report(made_facts("cox", 1, pictures=True), tmp_path)
    for file in (path, tmp_path / "report.json", *(tmp_path / "tables").iterdir()):
        assert "DOE_JOHN" not in file.read_text()
        assert str(tmp_path) not in file.read_text()


def test_missing_values_are_dashes_with_reasons(tmp_path):
    facts = made_facts(num_methods=2, clinical=False)
    values = facts.summaries["ABMIL"]["values"]
    values["auroc"] = {"value": float("nan"), "low": None, "high": None}
    values["auprc"] = None
    facts.summaries["ABMIL"]["notes"] = ["Fold 2 has one class."]
    facts.summaries["ABMIL"]["calibration"]["slope"] = {"value": np.nan, "low": np.nan, "high": np.nan}
    facts.cases[0]["error"] = facts.cases[0]["outputs"]["ABMIL"] = np.nan
    page = page_of(facts, tmp_path)
    assert page.tables["Values with 95 % intervals"][1][:4] == ["ABMIL", "60", "\u2013", "\u2013"]
    assert "no value: Fold 2 has one class." in page.labels
    assert page.tables["case-table"][-1][0] == "case_000"
    assert not {"nan", "None", "null"} & {word for text in page.texts for word in text.split()}


def test_a_study_without_any_result(tmp_path):
    facts = ReportFacts("Study", Task("regression"), {"num_cases": 3}, {"ABMIL": None, "QGMIL": None})
    page = page_of(facts, tmp_path)
    assert "No method has a value of the main metric: see the notes." in page.texts
    assert "QGMIL has no result: all of its runs failed or are missing." in page.texts
    assert page.counts.get("svg") is None
    empty = ReportFacts("Study", Task("cox"), {}, {})
    assert page_of(empty, tmp_path).open == []


def test_pictures_of_cases_stand_in_a_gallery_below_8_megabytes(tmp_path):
    facts = made_facts("cox", 1)
    rows = sorted(facts.cases, key=lambda row: -row["error"])
    for row in (*rows[:8], *rows[-4:]):
        row["pictures"] = [b"\xff\xd8jpeg", b"\x89PNG"]
    page = page_of(replace(facts, cases=rows), tmp_path)
    assert page.sources == ["data:image/jpeg;base64,/9hqcGVn", "data:image/png;base64,iVBORw=="] * 12
    assert page.counts["figure"] == page.counts["svg"] + 12
    texts = [text for text in page.texts if text.startswith("case_") and "error" in text]
    assert [text.split(":")[0] for text in texts] == [row["case_id"] for row in (*rows[:8], *rows[:-5:-1])]
    assert "pictures" not in json.loads((tmp_path / "report.json").read_text())["cases"][0]
    for row in (*rows[:8], *rows[-4:]):
        row["pictures"] = [b"\xff\xd8" + bytes(900_000)]
    path = write_report(replace(facts, cases=rows), tmp_path)
    assert len(ReportPage(path.read_text()).sources) == 4
    assert path.stat().st_size < 8_000_000


def test_many_cases_are_cut_in_the_page_and_not_in_the_table(tmp_path):
    rows = [{"case_id": f"c{i}", "error": 1 / (i + 1), "outputs": {"ABMIL": 0.5}} for i in range(3100)]
    facts = replace(made_facts(num_methods=1), cases=rows, histories={})
    page = page_of(facts, tmp_path)
    assert len(page.tables["case-table"]) == 3001
    assert len((tmp_path / "tables" / "cases.csv").read_text().splitlines()) == 3101


def test_an_external_cohort_says_so(tmp_path):
    page = page_of(replace(made_facts("cox", 1), external="Oslo"), tmp_path)
    assert page.texts[0] == "Nodules on CT: Oslo"
    assert any(text.startswith("The external cohort comprised") for text in page.texts)


LOOK = """<script>
const range = document.createRange();
const lines = th => { range.selectNodeContents(th); return range.getClientRects(); };
const headers = [...document.querySelectorAll(".matrix th")].filter(th => !/[ -]/.test(th.textContent.trim()));
const found = {
  width: document.documentElement.scrollWidth, inner: innerWidth,
  broken: headers.filter(th => lines(th).length > 1).map(th => th.textContent),
  unreachable: [...document.querySelectorAll(".scroll")].filter(
    part => part.scrollWidth > part.clientWidth && part.tabIndex !== 0).length,
  images: [...document.images].filter(image => image.getBoundingClientRect().width < 150).length,
};
const button = [...document.querySelectorAll("#case-table th button")].find(b => b.textContent === "case");
button.click(); button.click();
const rows = [...document.getElementById("case-table").tBodies[0].rows];
const field = document.getElementById("filter");
field.value = "case_01"; field.dispatchEvent(new Event("input"));
found.first = rows[0].cells[0].textContent;
found.shown = [...rows].filter(row => !row.hidden).length;
document.body.dataset.found = JSON.stringify(found);
</script></body>"""
FRAME = """<body><iframe srcdoc="{page}" style="width: {width}px; height: 800px; border: 0"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{ document.body.dataset.found = frame.contentDocument.body.dataset.found; }};
</script></body>"""  # the window of a browser is at least 500 pixels wide
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.mark.browser
@pytest.mark.slow(buys="the page fits into 360 to 1400 px, and its cases can be sorted and searched, in a browser")
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_page_in_a_browser(width, tmp_path):
    facts = made_facts(names=("adenocarcinoma", "squamous-cell-carcinoma", "neuroendocrine"), num_methods=4)
    facts.cases[0]["pictures"] = [facts_picture()]
    path = write_report(facts, tmp_path)
    page = path.read_text().replace("</body>", LOOK)
    path.write_text(FRAME.format(page=html.escape(page), width=width))
    flags = [*FLAGS, f"--user-data-dir={tmp_path}/chrome", "--window-size=1500,900"]
    command = ["chromium", *flags, "--dump-dom", path.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = json.loads(html.unescape(page.split('data-found="')[1].split('"')[0]))
    assert (found["first"], found["shown"]) == ("case_000", 10)
    assert found["width"] <= found["inner"] == width
    assert (found["broken"], found["unreachable"], found["images"]) == ([], 0, 0)


def facts_picture():
    """A white picture of 700 x 500 pixels as JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", (700, 500), "white").save(buffer, "jpeg")
    return buffer.getvalue()
