"""Tests of the notes on the folds of a study."""

import shutil

import pytest
import torch

from monai_mil_ext.apps.study import FoldPlan, Task
from monai_mil_ext.data import write_bag

BINARY = Task("classification", ("benign", "malignant"))


def cohort(table, **more):
    """Return items of sites with the given labels, each of a patient of its own."""
    rows = [(site, label) for site, labels in table.items() for label in labels]
    return [
        {"case_id": f"c{i}", "patient": f"p{i}", "site": site, "label": label, **more}
        for i, (site, label) in enumerate(rows)
    ]


def notes(items, task=BINARY, **options):
    return FoldPlan(**options).notes(items, task)


def test_a_balanced_cohort_has_no_notes():
    assert notes(cohort({"A": [0, 1] * 10, "B": [0, 1] * 10})) == []
    assert notes(cohort({"": [0, 1] * 10})) == []


def test_a_site_that_gives_the_class_away_is_named():
    found = " ".join(notes(cohort({"A": [0] * 10 + [1] * 5, "B": [0] + [1] * 14})))
    assert "site 'B' has 14 of 15 patients of class malignant, the other sites 5 of 15: a network can learn" in found
    assert "learn the site instead. Compare with folds by site (folds_by: site)." in found
    found = " ".join(notes(cohort({"A": [0] * 10 + [1] * 5, "B": [0] + [1] * 14}), by="site"))
    assert "learn the site instead." in found
    assert "Compare with" not in found


def test_each_label_and_the_times_are_compared_between_sites():
    items = cohort({"A": [[1.0, 0.0], [0.0, 1.0]] * 10, "B": [[1.0, 1.0], [0.0, 1.0]] * 10})
    found = notes(items, Task("multilabel", ("edema", "mass")))
    assert [note.split(" are")[0] for note in found] == ["Site and mass"]
    values = cohort({"A": [float(i) for i in range(20)], "B": [float(i + 30) for i in range(20)]})
    assert any("The label differs between sites" in note for note in notes(values, Task("regression")))
    times = [{**item, "time": item["label"], "event": i % 2} for i, item in enumerate(values)]
    found = notes(times, Task("cox"))
    assert any("The time differs between sites" in note for note in found)
    assert not any("Site and class" in note for note in found)


def test_sites_are_described():
    items = cohort({"A": [0, 1] * 10, "B": [0] * 5, "C": [1, 0, 1], "": [0, 1]})
    found = notes(items, by="spread")
    assert not any("upper and lower case" in note for note in found)
    renamed = [{**items[0], "site": " a "}, *items[1:]]
    assert any("upper and lower case" in note for note in notes(renamed))
    assert "2 patients with cases without a site; they are spread as one more site." in found
    assert "Sites with fewer than 5 patients, whose own values are very uncertain: 'C' (3)." in found
    assert any("Site 'B' has only class 'benign': no AUROC" in note for note in found)
    found = notes([item for item in items if item["site"]], by="site")
    assert "Each of the 3 sites is the test part of one fold; `num_folds` has no effect." in found
    assert "Class 'malignant' (12 patients) is missing in the test part of 1 of 3 folds." in found


def test_contradictory_labels_of_a_patient_are_counted():
    items = cohort({"": [0, 1] * 10})
    items += [{**items[0], "case_id": "x", "label": 1}]
    assert any(note.startswith("1 patient with different labels of their cases") for note in notes(items))
    labels = [{**item, "label": [item["label"], 1 - item["label"]]} for item in items]
    assert any("different labels" in note for note in notes(labels, Task("multilabel", ("a", "b"))))
    values = [{**item, "label": float(item["label"])} for item in items]
    (note,) = (text for text in notes(values, Task("regression")) if "different" in text)
    assert "different values of their cases: check that the value is one of the case" in note
    assert not any("different labels" in note for note in notes(items[:-1]))


@pytest.mark.parametrize("kind", ["copy", "link", "same"])
def test_bag_files_of_two_patients_are_counted(kind, tmp_path):
    items = cohort({"": [0, 1] * 10})
    for i, item in enumerate(items):
        item["image"] = str(tmp_path / f"{item['case_id']}.h5")
        write_bag(item["image"], {"features": torch.full((3, 4), float(i))})
    items[3]["image"] = [items[3]["image"]]
    assert notes(items) == []
    other = tmp_path / "other.h5"
    if kind == "copy":
        shutil.copy(items[3]["image"][0], other)
    elif kind == "link":
        other.symlink_to(items[3]["image"][0])
    items[4]["image"] = items[3]["image"][0] if kind == "same" else str(other)
    assert any(note.startswith("1 bag file used for several patients") for note in notes(items))
    items[4]["patient"] = items[3]["patient"]
    assert not any("bag file" in note for note in notes(items))
    items[4]["image"] = str(tmp_path / "missing.h5")
    assert not any("bag file" in note for note in notes(items))


def test_notes_name_neither_cases_nor_patients(tmp_path):
    items = cohort({"A": [0] * 9 + [1], "B": [1] * 9 + [0]})
    items += [{**items[0], "case_id": "c99", "label": 1, "site": "B"}]
    for item in items:
        item |= {"case_id": f"doe-{item['case_id']}", "patient": f"doe-{item['patient']}", "image": str(tmp_path)}
    assert "doe" not in " ".join(notes(items))
    assert str(tmp_path) not in " ".join(notes(items))
