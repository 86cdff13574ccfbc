"""Tests of the tables of a study of wsi_mil: cohort and second cohort, without a training."""

import numpy as np
import pytest

from monai_mil_ext.data import read_bag
from tests.bundles.wsi import ENCODER, F, content, start, write_features, write_small_slide
from tests.workflows import causes

HEADER = "wsi,pid,diagnosis,split"
ROWS = ["s0.svs,p0,malignant,train", "s1.svs,p1,benign,val", "s2.svs,p1,benign,test"]


def write_tables(folder, *, names=("s0", "s1", "s2")):
    for place in ("in", "ext"):
        for name in names:
            write_features(folder / place / "features" / f"{name}.h5", np.ones((3, F), np.float32), encoder="uni")
    (folder / "in" / "cohort.csv").write_text("\n".join([HEADER, *ROWS]))
    (folder / "ext" / "cohort.csv").write_text("bag,pid,diagnosis\nfeatures/s0.h5,q,benign\nfeatures/s1.h5,r,benign")
    return folder


def study(folder, *configs, **options):
    options = {"label": "diagnosis", "columns#patient": "pid", "study_dir": str(folder / "study"), **options}
    return start("study", *configs, table=str(folder / "in" / "cohort.csv"), **options)


def test_a_second_cohort_has_the_classes_of_the_first_and_columns_of_its_own(tmp_path):
    workflow = study(write_tables(tmp_path), external=str(tmp_path / "ext" / "cohort.csv"))
    items = content(workflow, "cohort")
    assert [(item["patient"], item["label"], item["split"]) for item in items] == [
        ("p0", 1, "train"), ("p1", 0, "val"), ("p1", 0, "test")
    ]  # fmt: skip
    assert [(item["patient"], item["label"]) for item in content(workflow, "external_cohort")] == [("q", 0), ("r", 0)]


def test_an_error_of_a_second_cohort_comes_before_the_runs(tmp_path):
    workflow = study(write_tables(tmp_path), external=str(tmp_path / "ext" / "cohort.csv"))
    (tmp_path / "ext" / "cohort.csv").write_text("bag,pid,diagnosis\nfeatures/s0.h5,q,unsure")
    with pytest.raises(Exception, match="ConfigExpression") as error:
        workflow.run()
    assert "a label must be one of 'benign', 'malignant', got 'unsure'" in causes(error.value)
    assert not (tmp_path / "study").exists()


def test_slides_take_the_columns_and_classes_of_the_study(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(2):
        write_small_slide(tmp_path / "in" / f"s{i}.tif", color=(196 - 60 * i, 120, 170))
    (tmp_path / "in" / "cohort.csv").write_text("image,pid,diagnosis\ns0.tif,p0,tumor\ns1.tif,p1,normal")
    workflow = study(tmp_path, "slides", dataset_dir=str(tmp_path / "in"), **ENCODER)
    assert [(item["patient"], item["label"]) for item in content(workflow, "cohort")] == [("p0", 1), ("p1", 0)]
    (tmp_path / "in" / "cohort.csv").write_text("bag,pid,diagnosis\ns0,p0,tumor\ns1,p1,normal")
    table = str(tmp_path / "in" / "cohort.csv")  # whose slides have features beside them now
    listed = start("inference", "slides", kind="infer", input=table, **{"columns#patient": "pid"}, **ENCODER)
    assert [item["image"][-6:] for item in content(listed, "slides")] == ["s0.tif", "s1.tif"]


def test_slides_of_a_second_cohort_with_the_same_names_keep_apart_and_are_drawn(tmp_path):
    for place, color in (("in", 196), ("ext", 90)):
        (tmp_path / place).mkdir()
        for name in ("s0", "s1"):
            write_small_slide(tmp_path / place / f"{name}.tif", color=(color, 120, 170))
        (tmp_path / place / "cohort.csv").write_text("image,pid,diagnosis\ns0.tif,p0,tumor\ns1.tif,p1,normal")
    given = {"dataset_dir": str(tmp_path / "in"), "external": str(tmp_path / "ext" / "cohort.csv"), **ENCODER}
    workflow = study(tmp_path, "slides", **given)
    first, second = (content(workflow, name)[0] for name in ("cohort", "external_cohort"))
    means = [read_bag(item["image"])["features"].mean() for item in (first, second)]
    assert abs(means[0] - means[1]) > 0.02  # each has the features of its own slide
    draw = content(workflow, "draw")
    pictures = [draw(item, np.full(first["num_instances"], 1 / first["num_instances"])) for item in (first, second)]
    assert [len(found) for found in pictures] == [2, 2]
    assert pictures[0] != pictures[1]
    assert content(study(tmp_path, "slides", pictures=False, **given), "draw") is None
