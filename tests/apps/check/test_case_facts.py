import numpy as np
import torch

from monai_mil_ext.apps.check import CheckSettings
from monai_mil_ext.data import TileGrid, write_bag
from monai_mil_ext.transforms import TileBagd
from tests.apps.check.cohorts import BAGS, bag_rows, check, messages, scan_rows
from tests.make_slide import stained, write_slide
from tests.scans import write_mha, write_series

SCANS = CheckSettings("scans", hounsfield=True, num_folds=3)


def slides(folder, mpps):
    for i, mpp in enumerate(mpps):
        write_slide(folder / f"s{i}.tiff", stained((600, 900), (100, 100, 500, 500), seed=i), mpp=mpp)
    return [{"case_id": f"c{i}", "patient": f"p{i}", "image": f"s{i}.tiff", "label": i % 2} for i in range(len(mpps))]


def test_an_mr_under_a_window_of_ct_is_noticed_by_a_sample(tmp_path):
    found = check(tmp_path, scan_rows(tmp_path, values=(0, 1200)), SCANS)
    assert {problem.option for problem in found.problems} == {"--normalization percentile"}
    assert len(found.problems) == 8
    assert check(tmp_path, scan_rows(tmp_path, values=(0, 1200)), CheckSettings(num_folds=3)).status == 0


def test_an_mr_is_noticed_by_its_modality(tmp_path):
    rows = scan_rows(tmp_path)
    write_series(tmp_path / "mr", Modality="MR", RescaleSlope=1, RescaleIntercept=-1024)
    found = check(tmp_path, [*rows, {"case_id": "m", "patient": "m", "image": "mr", "label": 0}], SCANS)
    assert "got modality MR" in messages(found.problems, "m")


def test_a_file_without_a_sample_or_a_modality_is_said_not_to_be_checked(tmp_path):
    rows = scan_rows(tmp_path)
    write_mha(tmp_path / "m.mha", np.zeros((6, 5, 10), np.int16), np.diag([1, 1, 3, 1.0]))
    found = check(tmp_path, [*rows, {"case_id": "m", "patient": "m", "image": "m.mha", "label": 0}], SCANS)
    assert (found.status, messages(found.notes, "m")) == (
        0,
        "whether its values are those of a CT is not known from its header",
    )


def test_a_series_with_a_gap_names_the_option(tmp_path):
    rows = scan_rows(tmp_path)
    write_series(tmp_path / "gap", shape=(6, 5, 5), heights=[0, 2.5, 5, 10, 12.5])
    found = check(tmp_path, [*rows, {"case_id": "g", "patient": "g", "image": "gap", "label": 0}], SCANS)
    assert [problem.option for problem in found.problems if problem.case == "g"] == ["--irregular allow"]
    assert found.rows[-1]["shape"] == [6, 5, 5]


def test_instances_are_counted_in_the_plane_of_the_bundle(tmp_path):
    rows = scan_rows(tmp_path, shape=(12, 11, 10))
    counts = [
        check(tmp_path, rows, CheckSettings(plane=p, num_folds=3)).rows[0]["instances"]
        for p in ("sagittal", "coronal", "axial")
    ]
    assert counts == [12, 11, 10]


def test_a_slide_states_size_levels_resolution_and_tiles(tmp_path):
    settings = CheckSettings("slides", tiles=TileBagd("image", grid=TileGrid(100, mpp=0.5)), num_folds=3)
    found = check(tmp_path, slides(tmp_path, [0.5] * 5 + [0.25]), settings)
    row = found.rows[0]
    assert (row["shape"], row["mpp"], row["levels"], row["tiles"]) == ([900, 600], 0.5, 3, 54)
    assert found.rows[5]["tiles"] == 12
    assert found.status == 0


def test_a_slide_without_a_resolution_names_the_option(tmp_path):
    settings = CheckSettings("slides", tiles=TileBagd("image", grid=TileGrid(100, mpp=0.5)), num_folds=3)
    found = check(tmp_path, slides(tmp_path, [0.5] * 5 + [None]), settings)
    assert "mpp" in messages(found.problems, "c5")
    assert "s5" not in messages(found.problems, "c5")
    rows = [{**row, "slide_mpp": 0.5} for row in slides(tmp_path, [0.5] * 5 + [None])]
    assert check(tmp_path, rows, settings).status == 0


def test_a_bag_states_encoder_width_and_range(tmp_path):
    row = check(tmp_path, bag_rows(tmp_path, encoder=lambda i: "uni")).rows[0]
    assert (row["kind"], row["encoder"], row["width"], row["instances"]) == ("bag", "uni", 4, 6)
    assert 0 <= row["lowest"] < row["highest"] <= 1


def test_bags_of_one_value_are_noted(tmp_path):
    rows = bag_rows(tmp_path)
    write_bag(tmp_path / "b1.h5", {"features": torch.zeros(6, 4)})
    write_bag(tmp_path / "b2.h5", {"features": torch.full((70, 4), 2.5)})
    found = check(tmp_path, rows, BAGS)
    assert found.status == 0
    assert "all features are 0 in a sample of 6 rows" in messages(found.notes, "c1")
    assert "all features are 2.5 in a sample of 64 rows" in messages(found.notes, "c2")
    assert not messages(found.notes, "c3")


def test_bags_of_another_width_with_nan_or_damaged_are_problems(tmp_path):
    rows = bag_rows(tmp_path)
    write_bag(tmp_path / "b1.h5", {"features": torch.rand(6, 5)})
    write_bag(tmp_path / "b2.h5", {"features": torch.full((6, 4), torch.nan)})
    (tmp_path / "b3.h5").write_bytes(b"no bag")
    write_bag(tmp_path / "b4.h5", {"features": torch.rand(0, 4)})
    found = check(tmp_path, rows, BAGS)
    assert "must have 4 columns as in 6 cases, got 5" in messages(found.problems, "c1")
    assert "must be finite" in messages(found.problems, "c2")
    assert messages(found.problems, "c3")
    assert "must have an instance, got none" in messages(found.problems, "c4")
    assert {problem.case for problem in found.problems} == {"c1", "c2", "c3", "c4"}
