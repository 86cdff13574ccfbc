"""Tests of cohorts of scans in JSON and of tables of slides."""

import csv

import numpy as np
import pytest
import torch

from monai_mil_ext.data import (
    CohortChecks,
    CohortColumns,
    FeatureCache,
    ScanChecks,
    load_cohort,
    load_scan_cohort,
    load_slide_cohort,
    write_bag,
)
from tests.data.cohort_files import HEAD, gdc_download, write_bags, write_scans, write_table

COLUMNS = CohortColumns(bag="slide")


def test_load_cohort_resolves_paths_and_keeps_other_entries(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "m.nii").touch()
    scan = {"case_id": "a", "patient": "p", "image": "a", "reference": "m.nii", "label": 1}
    other = {"case_id": "b", "patient": "p", "image": "./a/../m.nii"}
    first, second = load_cohort(write_scans(tmp_path, [scan, other]))
    assert first == {**scan, "image": str(tmp_path / "a"), "reference": str(tmp_path / "m.nii")}
    assert second["image"] == str(tmp_path / "m.nii")


def test_load_cohort_lists_all_errors(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.nii").touch()
    scans = [
        {"case_id": "a", "patient": "p", "image": "none.nii"},
        {"case_id": "a", "image": 3},
        {"case_id": "../x", "patient": "p", "image": "../out.nii"},
        {"case_id": "c", "patient": "p", "image": str(tmp_path / "out.nii"), "reference": ""},
    ]
    with pytest.raises(ValueError, match=r"cohort.json must be a valid cohort, got 8 errors") as error:
        load_cohort(write_scans(tmp_path / "in", scans))
    for line in (
        "scan 0: `image` must exist, got a path without a file",
        "scan 1: no `patient`",
        "scan 1: `image` must be a path, got 3",
        "scan 2: `case_id` must be letters",
        "scan 2: `image` must lie below `root`, got a path or a link out of it: give --root /",
        "scan 3: `image` must lie below `root`",
        "scan 3: `reference` must be a path, got ''",
        "`case_id` must be unique, got 'a' 2 times",
    ):
        assert line in str(error.value)


def test_load_cohort_refuses_links_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.nii").touch()
    (tmp_path / "in" / "link.nii").symlink_to(tmp_path / "out.nii")
    with pytest.raises(ValueError, match="scan 0: `image` must lie below `root`"):
        load_cohort(write_scans(tmp_path / "in", [{"case_id": "a", "patient": "p", "image": "link.nii"}]))


@pytest.mark.parametrize("text", ["{", "[]", '{"scans": {}}', '{"scans": []}', '{"scans": ["a"]}', "{}"])
def test_load_cohort_names_a_file_that_is_no_cohort(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=r"`path` must be .csv, .tsv, .xlsx, or JSON of the form .*, got 'c.json'"):
        load_cohort(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError, match=r"a cohort file that exists, got 'none.json'"):
        load_cohort(tmp_path / "none.json")


def encode(items):
    """Write features next to each slide, with the number of tiles in the slide's name."""
    for item in items:
        write_bag(f"{item['image']}.h5", {"features": np.zeros((int(item["case_id"][-1]), 4), np.float32)})
    return [{**item, "image": f"{item['image']}.h5"} for item in items]


def write_slides(folder, *rows):
    (folder / "cohort.csv").write_text("\n".join(["slide,patient,label", *rows]))
    for row in rows:
        (folder / row.split(",")[0]).write_bytes(b"slide")
    return folder / "cohort.csv"


def test_load_slide_cohort_items_equal_those_of_feature_files(tmp_path):
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,p,1", "s2.svs,q,0")
    items = load_slide_cohort(table, encode, COLUMNS)
    assert [(item["case_id"], item["num_instances"], item["label"]) for item in items] == [
        ("s3", 3, 1),
        ("s5", 5, 1),
        ("s2", 2, 0),
    ]
    assert items[0]["image"] == str(tmp_path / "s3.svs.h5")
    patients = load_slide_cohort(table, encode, COLUMNS, level="patient")
    assert [(item["case_id"], item["num_instances"], len(item["image"])) for item in patients] == [
        ("p", 8, 2),
        ("q", 2, 1),
    ]


def test_load_slide_cohort_checks_the_table_before_encoding(tmp_path):
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,,1")
    with pytest.raises(ValueError, match="`patient` must be given, got an empty cell"):
        load_slide_cohort(table, pytest.fail, COLUMNS)
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,p,0")
    with pytest.raises(ValueError, match="`label` must be the same for all bags"):
        load_slide_cohort(table, encode, COLUMNS, level="patient")


def left_out(folder):
    with (folder / "left_out.csv").open(newline="") as file:
        return {row["case"]: row["reason"] for row in csv.DictReader(file)}


def test_load_cohort_skips_every_kind_of_bad_bag(tmp_path):
    """Of ten slides, two are good."""
    write_bags(tmp_path, {"a": 2, "b": 2, "no_label": 2, "no_patient": 2, "bad_label": 2, "empty": 0})
    write_bags(tmp_path, {"wide": 2}, width=5)
    write_bag(tmp_path / "nan.h5", {"features": np.array([[1, np.nan, 2]], np.float32)})
    (tmp_path / "cut.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:900])
    rows = [[name, f"p_{name}", "0"] for name in ("a", "b", "empty", "wide", "nan", "cut", "missing")]
    rows += [["no_label", "p", ""], ["no_patient", "", "0"], ["bad_label", "p", "tumor"]]
    table, checks = write_table(tmp_path / "c.csv", [HEAD, *rows]), CohortChecks(features=True)
    with pytest.raises(ValueError, match="must be a valid cohort, got 8 errors"):
        load_cohort(table, checks=checks, output_dir=tmp_path / "eval")
    assert not (tmp_path / "eval").exists()
    items = load_cohort(table, checks=checks, on_bad="skip", output_dir=tmp_path / "eval")
    assert [item["case_id"] for item in items] == ["a", "b"]
    reasons = left_out(tmp_path / "eval")
    assert list(reasons) == ["empty", "wide", "nan", "cut", "missing", "no_label", "no_patient", "bad_label"]
    assert reasons["nan"] == "features must be finite, got 1 NaN or infinite values"
    assert str(tmp_path) not in (tmp_path / "eval" / "left_out.csv").read_text()


def test_load_cohort_at_patient_level_leaves_out_single_slides_and_contradictory_patients(tmp_path):
    write_bags(tmp_path, {"p1": 2, "p2": 0, "q1": 2, "q2": 2, "r1": 0})
    rows = [["p1", "p", "0"], ["p2", "p", "0"], ["q1", "q", "0"], ["q2", "q", "1"], ["r1", "r", "0"]]
    table = write_table(tmp_path / "c.csv", [HEAD, *rows])
    items = load_cohort(table, level="patient", on_bad="skip", output_dir=tmp_path)
    assert [(item["case_id"], item["num_instances"]) for item in items] == [("p", 2)]
    assert set(left_out(tmp_path)) == {"p2", "r1", "q"}


def test_load_cohort_never_skips_rows_that_contradict_each_other(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["a.h5", "p", "1"], ["b", "q", "1"]])
    with pytest.raises(ValueError, match="`bag` must be in one row only, got it in row 2 too"):
        load_cohort(table, on_bad="skip")


def test_load_cohort_of_links_to_themselves_and_endless_names(tmp_path):
    write_bags(tmp_path, {"a": 2})
    (tmp_path / "loop").symlink_to("loop")
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["loop", "q", "0"], ["x" * 300, "r", "0"]])
    assert len(load_cohort(table, on_bad="skip", output_dir=tmp_path)) == 1
    assert len(left_out(tmp_path)) == 2
    assert str(tmp_path) not in (tmp_path / "left_out.csv").read_text()


def cache_of(folder, calls):
    """Return a cache whose transform fails for cases that contain "bad" and gives NaN for "nan"."""

    def transform(item):
        calls.append(item["case_id"])
        if "bad" in item["case_id"]:
            raise ValueError(f"`image` must be undamaged, got {item['image']}.")
        return {"image": torch.full((3, 2), float("nan") if "nan" in item["case_id"] else 1.0)}

    return FeatureCache(folder / "features", transform, fingerprint="f" * 64, progress=False)


def write_scan_cohort(folder, *cases):
    for case in cases:
        (folder / f"DOE_{case}.mha").write_text("" if "empty" in case else "voxels")
    scans = [{"case_id": case, "patient": case, "image": f"DOE_{case}.mha", "label": 0} for case in cases]
    return write_scans(folder, [*scans, {"case_id": "lost", "patient": "p", "image": "DOE_lost.mha"}])


def test_load_scan_cohort_checks_all_scans_before_it_encodes_one(tmp_path):
    path, calls = write_scan_cohort(tmp_path, "a", "empty1", "empty2", "bad1"), []
    with pytest.raises(ValueError, match=r"cohort.json must be a valid cohort, got 3 errors:") as error:
        load_scan_cohort(path, cache_of(tmp_path, calls))
    assert calls == []
    assert "scan 4: `image` must exist, got a path without a file" in str(error.value)
    assert "DOE" not in str(error.value)


def test_load_scan_cohort_lists_what_only_encoding_shows_at_once(tmp_path):
    cases = ["bad1", "a", "nan", "b", "bad2"]
    path, calls = write_scan_cohort(tmp_path, *cases), []
    scans = [{"case_id": case, "patient": case, "image": str(tmp_path / f"DOE_{case}.mha")} for case in cases]
    with pytest.raises(ValueError, match="cohort must be a valid cohort, got 3 errors:") as error:
        load_scan_cohort(scans, cache_of(tmp_path, calls))
    assert calls == cases
    reason = "`image` must be undamaged, got the file."
    assert f"case 'bad1': {reason}\n  case 'bad2': {reason}\n  case 'nan': features must be finite" in str(error.value)
    items = load_scan_cohort(path, cache_of(tmp_path, calls), on_bad="skip", output_dir=tmp_path)
    assert [(item["case_id"], item["num_instances"]) for item in items] == [("a", 3), ("b", 3)]
    assert calls == [*cases, "bad1", "bad2"]  # good ones are encoded once
    assert list(left_out(tmp_path)) == ["lost", "bad1", "bad2", "nan"]
    assert "DOE" not in (tmp_path / "left_out.csv").read_text()


def test_load_scan_cohort_says_before_encoding_that_no_scan_has_a_mask(tmp_path):
    path = write_scan_cohort(tmp_path, "a", "b")
    for on_bad in ("refuse", "skip"):
        with pytest.raises(ValueError, match="`reference` must be given for scans, got none in all 2: take labels"):
            load_scan_cohort(path, pytest.fail, ScanChecks({"reference": "take labels"}), on_bad)


def test_load_slide_cohort_skips_bad_slides(tmp_path):
    names = ["a", "bad1", "b", "bad2", "empty"]
    table = write_slides(tmp_path, *(f"{name}.svs,p_{name},0" for name in names), "lost.svs,q,0", "c.svs,q,")
    (tmp_path / "lost.svs").unlink()
    (tmp_path / "empty.svs").write_bytes(b"")
    calls = []
    with pytest.raises(ValueError, match="got 3 errors"):
        load_slide_cohort(table, cache_of(tmp_path, calls), COLUMNS)
    assert calls == []
    items = load_slide_cohort(table, cache_of(tmp_path, calls), COLUMNS, on_bad="skip", output_dir=tmp_path)
    assert [item["case_id"] for item in items] == ["a", "b"]
    assert calls == ["a", "bad1", "b", "bad2"]
    assert list(left_out(tmp_path)) == ["empty", "lost", "c", "bad1", "bad2"]


def test_load_slide_cohort_leaves_out_patients_whose_slides_contradict_each_other(tmp_path):
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,p,0", "s2.svs,q,0", "s4.svs,q,0")
    with pytest.raises(ValueError, match="patient 'p': `label` must be the same for all bags"):
        load_slide_cohort(table, pytest.fail, COLUMNS, level="patient")
    items = load_slide_cohort(table, encode, COLUMNS, level="patient", on_bad="skip", output_dir=tmp_path)
    assert [(item["case_id"], item["num_instances"]) for item in items] == [("q", 6)]
    assert list(left_out(tmp_path)) == ["p"]


def test_load_cohort_of_scans_with_a_root_reads_paths_to_anywhere(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.nii").touch()
    (tmp_path / "in" / "link.nii").symlink_to(tmp_path / "out.nii")
    images = ["link.nii", "../out.nii", str(tmp_path / "out.nii")]
    scans = [{"case_id": str(i), "patient": 12 + i, "image": image} for i, image in enumerate(images)]
    path = write_scans(tmp_path / "in", scans)
    for root in (tmp_path, "/"):
        assert {item["image"] for item in load_cohort(path, root=root)} == {str(tmp_path / "out.nii")}
    assert [item["patient"] for item in load_cohort(path, root="/")] == ["12", "13", "14"]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_load_scan_cohort_reads_a_table_like_json(tmp_path, kind):
    for case in "abc":
        (tmp_path / f"{case}.mha").write_text("voxels")
    head = ["case_id", "patient", "image", "label", "doctor"]
    rows = [["a", "7", "a.mha", "1.0", "x"], ["b", "8", "b.mha", "no tumor", ""], ["c", "8", "c.mha", "0", ""]]
    if kind == "csv":
        path = write_table(tmp_path / "scans.csv", [head, *rows])
    else:
        path = write_scans(tmp_path, [dict(zip(head[:4], row[:4], strict=True)) for row in rows])
    checks = ScanChecks({"label": "give labels"}, num_classes=2, classes=["no tumor", "tumor"])
    items = load_scan_cohort(path, cache_of(tmp_path, []), checks)
    assert [(i["case_id"], i["patient"], i["label"]) for i in items] == [("a", "7", 1), ("b", "8", 0), ("c", "8", 0)]
    with pytest.raises(ValueError, match="case 'b': `label` must be a class from 0 to 1, got 'no tumor'"):
        load_scan_cohort(path, pytest.fail, ScanChecks(num_classes=2))
    assert [item["case_id"] for item in load_cohort(path)] == ["a", "b", "c"]


def test_load_scan_cohort_names_the_option_for_labels_that_are_words_once(tmp_path):
    (tmp_path / "a.mha").write_text("voxels")
    scans = [
        {"case_id": f"{i}", "patient": f"{i}", "image": "a.mha", "label": label}
        for i, label in enumerate(["healthy", "bleeding"] * 9)
    ]
    words = r"""got 1 error:\n  labels are bleeding, healthy: give --class_names "\['bleeding','healthy'\]" """
    for classes in (None, ["no tumor", "tumor"]):
        with pytest.raises(ValueError, match=words.strip()):
            load_scan_cohort(write_scans(tmp_path, scans), pytest.fail, ScanChecks(num_classes=2, classes=classes))


def test_load_slide_cohort_finds_slides_by_name_in_sub_folders(tmp_path):
    gdc_download(tmp_path)
    names = ["TCGA-AA-0001-01Z-00-DX1.0b1c", "TCGA-AA-0002-01Z-00-DX1.2d3e"]
    rows = [["slide_id", "case_id", "label"], *([name, f"p{i}", i] for i, name in enumerate(names))]
    items = load_slide_cohort(
        write_table(tmp_path / "c.csv", rows),
        lambda items: [{**item, "image": written(tmp_path, item)} for item in items],
        CohortColumns(bag="slide_id", patient="case_id"),
    )
    assert [item["case_id"] for item in items] == names


def written(folder, item):
    path = folder / "out" / f"{item['case_id']}.h5"
    write_bag(path, {"features": np.zeros((2, 4), np.float32)})
    return str(path)


def test_load_cohort_joins_the_two_tables_of_stamp(tmp_path):
    write_bags(tmp_path / "features", {"a": 2, "b": 3, "c": 1})
    slides = write_table(tmp_path / "slide.csv", [["FILENAME", "PATIENT"], ["a.h5", "p"], ["b.h5", "p"], ["c.h5", "q"]])
    clini = write_table(tmp_path / "clini.csv", [["PATIENT", "KRAS", "AGE"], ["p", "WT", "50"], ["r", "MUT", "40"]])
    columns = CohortColumns("FILENAME", "PATIENT", "KRAS", classes=["WT", "MUT"])
    options = {"columns": columns, "root": tmp_path / "features", "on_bad": "skip", "output_dir": tmp_path}
    for tables in ([clini, slides], [slides, clini]):
        items = load_cohort(tables, **options)
        assert [(item["case_id"], item["patient"], item["label"]) for item in items] == [("a", "p", 0), ("b", "p", 0)]
    assert left_out(tmp_path) == {"c": "`label` must be one of 'WT', 'MUT', got an empty cell"}
    (patient,) = load_cohort([slides, clini], level="patient", **options)
    assert (patient["case_id"], patient["num_instances"]) == ("p", 5)
