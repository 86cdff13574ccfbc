"""load_slide_cohort: items of slides whose features are computed on loading."""

import numpy as np
import pytest

from monai_mil_ext.data import CohortColumns, load_slide_cohort, write_bag


def encode(items):
    """Write features next to each slide, with the number of tiles in the slide's name."""
    for item in items:
        write_bag(f"{item['image']}.h5", {"features": np.zeros((int(item["case_id"][-1]), 4), np.float32)})
    return [{**item, "image": f"{item['image']}.h5"} for item in items]


def make(folder, *rows):
    (folder / "cohort.csv").write_text("\n".join(["slide,patient,label", *rows]))
    for row in rows:
        (folder / row.split(",")[0]).write_bytes(b"slide")
    return folder / "cohort.csv"


COLUMNS = CohortColumns(bag="slide")


def test_load_slide_cohort_items_equal_those_of_feature_files(tmp_path):
    table = make(tmp_path, "s3.svs,p,1", "s5.svs,p,1", "s2.svs,q,0")
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
    table = make(tmp_path, "s3.svs,p,1", "s5.svs,,1")
    with pytest.raises(ValueError, match="`patient` must be given, got an empty cell"):
        load_slide_cohort(table, pytest.fail, COLUMNS)
    table = make(tmp_path, "s3.svs,p,1", "s5.svs,p,0")
    with pytest.raises(ValueError, match="`label` must be the same for all bags"):
        load_slide_cohort(table, encode, COLUMNS, level="patient")
