"""Tests of the check as the first step of a study."""

import json

import pytest
import torch

from monai_mil_ext.apps.check import CheckSettings, check_study_items, check_table, load_checked
from monai_mil_ext.data import load_cohort, write_bag
from monai_mil_ext.data.bags.bag_file import OpenBag
from monai_mil_ext.utils import write_csv
from tests.apps.check.cohorts import BAGS, bag_rows


def make_items(folder, **attributes):
    return [{**row, "image": str(folder / row["image"])} for row in bag_rows(folder, **attributes)]


def spoil(path, row):
    features = torch.rand(100, 4)
    features[row] = torch.nan
    write_bag(path, {"features": features})


def test_all_that_is_wrong_with_items_is_found_at_once(tmp_path):
    items = make_items(tmp_path)
    spoil(tmp_path / "b1.h5", 1)  # which a sample of the rows would miss
    write_bag(tmp_path / "b4.h5", {"features": torch.rand(3, 9)})
    (tmp_path / "b6.h5").write_bytes(b"no bag")
    checked = check_study_items(items[::-1], BAGS, tmp_path / "checked.json")
    assert [item["case_id"] for item in checked.usable] == ["c0", "c2", "c3", "c5", "c7"]
    reasons = {row["case_id"]: row["reason"] for row in checked.left_out}
    assert list(reasons) == ["c1", "c4", "c6"]
    assert "features must be finite, got 4 NaN or infinite values" in reasons["c1"]
    assert "features must have 4 columns as in 6 cases, got 9" in reasons["c4"]
    assert "b6" not in reasons["c6"]


def test_features_are_read_once(tmp_path, monkeypatch):
    items, read = make_items(tmp_path), []
    original = OpenBag.read
    monkeypatch.setattr(
        OpenBag, "read", lambda bag, keys, *more, **options: read.append(keys) or original(bag, keys, *more, **options)
    )
    for expected in (8, 0, 1):
        read.clear()
        assert len(check_study_items(items, BAGS, tmp_path / "checked.json").usable) == 8
        assert sum("features" in keys for keys in read) == expected
        if not expected:
            write_bag(items[3]["image"], {"features": torch.rand(6, 4)})
    assert len(json.loads((tmp_path / "checked.json").read_text())) == 8


def test_problems_of_the_whole_are_errors_and_those_of_labels_are_left_to_the_folds(tmp_path):
    items = make_items(tmp_path)
    rule = "`case_id` must be unique, got 'c2' 2 times: item 2, item 8"
    with pytest.raises(ValueError, match=rf"cohort must be a valid cohort, got 1 problem:\n  {rule}"):
        check_study_items([*items, {**items[3], "case_id": "c2"}], BAGS, tmp_path / "checked.json")
    twice = [*items, {**items[0], "case_id": "copy"}, {**items[2], "case_id": "other", "patient": "p1"}]
    checked = check_study_items(twice, BAGS, tmp_path / "checked.json")
    assert (len(checked.usable), checked.left_out, checked.notes) == (10, [], [])
    for item in items:
        item["image"] = str(tmp_path / "lost.h5")
    with pytest.raises(ValueError, match=r"got 9 problems:\n  c0, c1"):
        check_study_items(items, BAGS, tmp_path / "checked.json")


def start(folder, rows, on_bad):
    write_csv(folder / "cohort.csv", rows)
    check = check_table(folder / "cohort.csv", BAGS)
    return load_checked(check, lambda: load_cohort(folder / "cohort.csv", None, None, None, "bag", on_bad, folder),
                        on_bad, folder)  # fmt: skip


def test_a_case_is_told_once_whether_the_check_or_the_loading_finds_it(tmp_path, capsys, caplog):
    rows = bag_rows(tmp_path)
    for row in rows:
        row["image"] = str(tmp_path / row["image"])
    (tmp_path / "b2.h5").write_bytes(b"no bag")
    items = start(tmp_path, rows, "skip")
    text = capsys.readouterr().out + caplog.text
    assert len(items) == 7
    assert text.count("c2") == 1
    assert "Cases with a problem are left out." in text
    with pytest.raises(ValueError, match=r"cohort\.csv must be a valid cohort, got 1 problem:\n  c2: "):
        start(tmp_path, rows, "refuse")
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="`on_bad`"):
        start(tmp_path, rows, "maybe")


def test_a_case_that_fails_after_the_check_is_told(tmp_path, capsys):
    rows = bag_rows(tmp_path)
    write_csv(tmp_path / "cohort.csv", rows)
    write_csv(tmp_path / "left_out.csv", [{"case": "c5", "reason": "no tissue"}])
    check = check_table(tmp_path / "cohort.csv", BAGS)
    assert load_checked(check, lambda: rows, "skip", tmp_path) == rows
    assert capsys.readouterr().out.endswith("c5 is left out: no tissue\n")


def test_notes_of_the_files_are_notes_of_the_study(tmp_path):
    rows = bag_rows(tmp_path, mpp=lambda i: 0.25 if i % 2 else 0.5)
    for row in rows:
        row["site"] = "a" if row["label"] else "b"
    write_csv(tmp_path / "cohort.csv", rows)
    check = check_table(tmp_path / "cohort.csv", CheckSettings("bags", num_folds=3))
    notes = check.study_notes()
    assert any("resolution and label are confounded" in note for note in notes)
    assert any("site and label are confounded" in note.message for note in check.notes)
    assert not any("site" in note for note in notes)
