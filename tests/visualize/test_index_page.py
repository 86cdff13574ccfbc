"""Tests of the index page of the results of many cases."""

import csv
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from monai_mil_ext.utils import write_csv
from monai_mil_ext.visualize import write_index
from monai_mil_ext.visualize.index_page import case_viewer


class Page(HTMLParser):
    """Links, pictures, and the texts of the cells of each row of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.pictures, self.rows, self.scripts, self.inside = [], [], [], 0, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values["href"]] if tag == "a" else []
        self.pictures += [values["src"]] if tag == "img" else []
        self.scripts += tag == "script"
        if tag == "tr":
            self.rows.append([])
            self.inside = True
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "tr"

    def handle_data(self, data):
        if self.inside and self.rows[-1]:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()


def row(case, status="done", **values):
    return {"case_id": case, "use": "research use only", "status": status, **values}


def write_case(folder, case, *ends):
    (folder / case).mkdir()
    for end in ends:
        (folder / case / f"{case}{end}").write_bytes(b"x")


def test_write_index_lists_done_and_failed_cases(tmp_path):
    write_case(tmp_path, "c1", ".html", ".png", "_scores.nii.gz")
    write_case(tmp_path, "c2", ".png")
    rows = [
        row("c1", prediction=1, predicted_class="tumor", probability_0=0.2, probability_1=0.8),
        row("c2", prediction=0, predicted_class="no tumor", probability_0=0.75, probability_1=0.25, notes="cut"),
        row("c3", "unreadable: got 2 series", option="try --series"),
    ]
    path = write_index(tmp_path, rows, "Results of m", ["no tumor", "tumor"])
    assert path == tmp_path / "index.html"
    page = Page(path.read_text())
    assert [cells[:5] for cells in page.rows] == [
        ["picture", "case", "prediction", "probability of tumor", "status"],
        ["", "c1", "tumor", "0.800", "done"],
        ["", "c2", "no tumor", "0.250", "done cut"],
        ["", "c3", "", "", "unreadable: got 2 series try --series"],
    ]
    assert page.links == ["c1/c1.html"] * 2 + ["c2/c2.png"] * 2
    assert page.pictures == ["c1/c1.png", "c2/c2.png"]
    assert "3 cases, 2 done" in path.read_text()
    assert "research use only" in path.read_text()
    assert "http" not in path.read_text()


def test_write_index_takes_the_rows_of_a_table(tmp_path):
    write_csv(tmp_path / "results.csv", [row("a", prediction=2, **{f"probability_{c}": c / 3 for c in range(3)})])
    with (tmp_path / "results.csv").open() as file:
        page = Page(write_index(tmp_path, list(csv.DictReader(file))).read_text())
    assert page.rows[0][2:6] == ["prediction", *(f"probability of class {c}" for c in range(3))]
    assert page.rows[1][1:6] == ["a", "2", "0.000", "0.333", "0.667"]
    assert not page.links


@pytest.mark.parametrize("case", ["<script>alert(1)</script>", "a#1?b=%20 ä", "javascript:alert(1)", "\"' onload='x"])
def test_write_index_shows_hostile_names_as_texts(case, tmp_path):
    if "/" not in case:
        write_case(tmp_path, case, ".html", ".png")
    page = Page(write_index(tmp_path, [row(case, notes=case)], case, [case, case]).read_text())
    assert page.scripts == 1
    assert page.rows[1][1] == case
    for address in (*page.links, *page.pictures):
        assert not address.lower().startswith("javascript:")
        assert (tmp_path / unquote(address)).is_file()


def test_write_index_of_a_run_without_any_result(tmp_path):
    page = Page(write_index(tmp_path, [row("a", "not reached")]).read_text())
    assert page.rows[0] == ["picture", "case", "status"]
    assert page.rows[1][:3] == ["", "a", "not reached"]
    assert Page(write_index(tmp_path, []).read_text()).rows == [["picture", "case", "status"]]


def test_write_index_shows_the_tissue_of_a_slide_without_tiles(tmp_path):
    write_case(tmp_path, "c1", "_tissue.jpg")
    write_case(tmp_path, "c2", "_tissue.jpg", ".png")
    page = Page(write_index(tmp_path, [row("c1", "empty"), row("c2", "unreadable: cut off")]).read_text())
    assert page.pictures == ["c1/c1_tissue.jpg"]  # results of an earlier run are not those of c2
    assert page.links == ["c1/c1_tissue.jpg"] * 2


def test_write_index_links_the_viewer_before_the_page(tmp_path):
    write_case(tmp_path, "c1", ".html", ".png")
    (tmp_path / "c1" / "viewer").mkdir()
    (tmp_path / "c1" / "viewer" / "index.html").touch()
    page = Page(write_index(tmp_path, [row("c1", probability_0=0.2, probability_1=0.8)]).read_text())
    assert page.links == ["c1/viewer/index.html"] * 2
    assert page.pictures == ["c1/c1.png"]


def test_write_index_shows_the_first_picture_that_a_case_has(tmp_path):
    for case, names in {
        "c1": ["c1_cells.png"],
        "c2": ["viewer/thumbnail.jpg"],
        "c3": ["viewer/thumbnail.jpg", "c3.png"],
    }.items():
        for name in names:
            (tmp_path / case / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / case / name).touch()
    page = Page(write_index(tmp_path, [row("c1"), row("c2"), row("c3")]).read_text())
    assert page.pictures == ["c1/c1_cells.png", "c2/viewer/thumbnail.jpg", "c3/c3.png"]


@pytest.mark.parametrize("case", ["../c", "a/../../c"])
def test_case_viewer_stays_in_its_folder(case, tmp_path):
    (tmp_path / "results" / "a").mkdir(parents=True)
    (tmp_path / "c" / "viewer").mkdir(parents=True)
    (tmp_path / "c" / "viewer" / "index.html").touch()
    assert case_viewer(tmp_path / "results", case) == ""
    assert case_viewer(tmp_path, "c") == "c/viewer/index.html"


@pytest.mark.parametrize("names", [["value"], ["risk"], ["survival_6", "survival_12"], ["value_0", "value_1"]])
def test_write_index_shows_values_of_tasks_without_classes(tmp_path, names):
    path = write_index(tmp_path, [row("c1", **dict.fromkeys(names, 0.25))])
    head, cells = Page(path.read_text()).rows[:2]
    assert head[1:] == ["case", *(name.replace("_", " ") for name in names), "status"]
    assert cells[2:-1] == ["0.250"] * len(names)
