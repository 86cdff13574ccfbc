"""Tests of instance sets in the results of inference."""

import csv
import json

import pytest
import torch

from monai_mil_ext.handlers import ScanBatchInference, ScanResultsSaver, SlideResultsSaver
from monai_mil_ext.handlers.savers.instance_set import instance_set, set_columns
from monai_mil_ext.metrics import ConformalInstances
from tests.handlers.savers.items import scan, slide

BAGS = [torch.tensor([0.4, 0.3, 0.2, 0.1])] * 9
MODEL = {"name": "tumor", "version": "1", "sha256": "ab" * 32, "trained_on": "model.json"}


def record(rank=1, **changes):
    """Return a calibration whose sets have ``rank`` instances."""
    sets = ConformalInstances(0.1).fit(BAGS, [torch.eye(4).long()[rank - 1]] * 9)
    return {**sets.to_dict(), "bag_sizes": [3, 6], "score_source": "mean", **changes}


def prediction(saver, item):
    saver.save(item)
    return json.loads(saver.prediction_file(item["case_id"]).read_text())


def test_scans_have_the_numbers_of_the_slices_and_a_sentence(tmp_path):
    saver = ScanResultsSaver(tmp_path, pictures=["png", "html"], model={**MODEL, "instance_set": record(2)})
    item = scan(slice_index=torch.tensor([10, 11, 12, 13, 0]), spatial_shape=torch.tensor([6, 5, 14]))
    entry = prediction(saver, item)["instance_set"]
    assert entry == {
        "sentence": "If the scan has a lesion, these 2 of 4 slices include at least one slice with a lesion with a "
        "probability of at least 90 %.",
        "target": "any",
        "confidence": 0.9,
        "num_calibration_bags": 9,
        "num_needed": 2,
        "num_instances": 4,
        "abstained": False,
        "indices": [2, 1],
        "slice_numbers": [12, 13],
    }
    page = (tmp_path / "c1" / "c1.html").read_text()
    assert "these 2 of 4 slices include at least one slice" in page
    assert "Slices: 12, 13." in page


def test_the_picture_marks_the_set(tmp_path, monkeypatch):
    from monai_mil_ext.handlers.savers import scan_results

    drawn = []
    plot = scan_results.plot_slice_scores
    monkeypatch.setattr(scan_results, "plot_slice_scores", lambda *args: drawn.append(plot(*args)) or drawn[-1])
    ScanResultsSaver(tmp_path, model={**MODEL, "instance_set": record(2)}).save(scan())
    labels = [text.get_text() for part in drawn[0].subfigs for legend in part.legends for text in legend.get_texts()]
    assert "these 2 of 4 slices, 90 %" in labels
    ScanResultsSaver(tmp_path, model={**MODEL, "instance_set": record(3)}).save(scan())
    labels = [text.get_text() for part in drawn[1].subfigs for legend in part.legends for text in legend.get_texts()]
    assert not [text for text in labels if "slices, 90" in text]


def test_a_set_that_is_too_large_is_not_shown(tmp_path):
    saver = ScanResultsSaver(tmp_path, pictures=["html"], model={**MODEL, "instance_set": record(3)})
    entry = prediction(saver, scan())["instance_set"]
    assert (entry["abstained"], entry["indices"], entry["num_needed"]) == (True, [], 3)
    assert "slice_numbers" not in entry
    assert "No set of slices: " in (tmp_path / "c1" / "c1.html").read_text()


def test_slides_have_sets_of_tiles(tmp_path):
    saver = SlideResultsSaver(tmp_path, pictures=[], model={**MODEL, "instance_set": record(1)})
    entry = prediction(saver, slide())["instance_set"]
    assert entry["indices"] == [1]
    assert entry["corners"] == [[64, 0]]
    assert entry["sentence"].startswith("If the slide has a lesion, this 1 of 3 tiles includes at least one tile")
    geojson = json.loads((tmp_path / "s1" / "s1.geojson").read_text())
    assert geojson["instance_set"] == "this 1 of 3 tiles, 90 %"
    assert [tile["properties"]["measurements"]["in_set"] for tile in geojson["features"]] == [0, 1, 0]


def test_the_overlay_of_a_slide_outlines_the_set(tmp_path, monkeypatch):
    from monai_mil_ext.visualize import slide_overlay

    drawn = []
    monkeypatch.setattr(slide_overlay, "save_figure", lambda figure, path, dpi: drawn.append(figure))
    pixels = {"thumbnail": torch.full((32, 40, 3), 200, dtype=torch.uint8), "thumbnail_downsample": 4.0}
    for rank in (1, 3):
        SlideResultsSaver(tmp_path, ["a", "b"], ["overlay"], model={**MODEL, "instance_set": record(rank)}).save(
            slide(**pixels)
        )
    left = drawn[0].axes[0]
    assert [path.vertices[0].tolist() for path in left.collections[0].get_paths()] == [[64, 0]]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["this 1 of 3 tiles, 90 %"]
    assert not drawn[1].axes[0].collections  # more tiles than may be shown


def test_the_bag_of_several_slides_is_a_patient(tmp_path):
    saver = SlideResultsSaver(tmp_path, pictures=[], model={**MODEL, "instance_set": record(1)})
    item = slide(slide_index=torch.tensor([0, 0, 1, 0]), slide_count=2, unit="um")
    assert prediction(saver, item)["instance_set"]["sentence"].startswith("If the patient has a lesion, this 1 of 3")


def test_a_slide_without_places_of_its_tiles_has_a_set_without_corners(tmp_path):
    saver = SlideResultsSaver(tmp_path, pictures=[], model={**MODEL, "instance_set": record(1)})
    entry = prediction(saver, slide(unit="um"))["instance_set"]
    assert entry["indices"] == [1]
    assert "corners" not in entry


@pytest.mark.parametrize(
    ("change", "check", "reason"),
    [
        ({"bag_sizes": [5, 9]}, "", "the scan has 4 slices, those of the calibration 5 to 9"),
        ({"score_source": 1}, "", "the calibration is of the attention 1, not mean"),
        ({"missing": "it is of other weights"}, "", "it is of other weights"),
        ({}, "mismatch: trained on 5x, got 20x", "the input differs from that of the training"),
    ],
)
def test_there_is_no_set_where_the_calibration_says_nothing(change, check, reason):
    entry = instance_set(scan(), record(**change), check, ("slice", "scan"))
    assert entry["missing"] == reason
    assert entry["sentence"] == f"No set of slices: {reason}."
    assert set_columns({"instance_set": entry}) == {"set_size": "", "set_confidence": 0.9}


def test_a_model_without_a_calibration_has_no_set(tmp_path):
    assert "instance_set" not in prediction(ScanResultsSaver(tmp_path, pictures=[], model=MODEL), scan())
    assert set_columns({}) == {}


def test_the_table_of_scans_has_the_size_of_the_set(tmp_path):
    rows = {}
    for rank in (2, 3):
        saver = ScanResultsSaver(tmp_path / str(rank), pictures=[], model={**MODEL, "instance_set": record(rank)})
        handler = ScanBatchInference(saver, [{"case_id": "c1", "image": "absent"}])
        saver.save(scan(), {"input": None})
        handler._done = {"c1"}
        handler.finish()
        rows[rank] = next(csv.DictReader((tmp_path / str(rank) / "results.csv").open()))
    assert [(rows[rank]["set_size"], rows[rank]["set_confidence"]) for rank in rows] == [("2", "0.9"), ("", "0.9")]
