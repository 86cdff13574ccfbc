import time

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import nn

from monai_mil_ext.apps.check import CheckSettings, EncodingPlan
from monai_mil_ext.apps.check import encoding_estimate as module
from monai_mil_ext.apps.check.encoding_estimate import EncodingEstimate
from monai_mil_ext.data import FeatureCache, TileGrid
from monai_mil_ext.transforms import EncodeInstancesd, LoadScand, SliceBagd, TileBagd
from tests.apps.check.cohorts import BAGS, bag_rows, check, messages, scan_rows
from tests.make_slide import stained, write_slide

SCANS = CheckSettings("scans", num_folds=3)


class Slow(nn.Module):
    """Encoder of a known speed: 10 ms of a core for an image, 5 features."""

    def forward(self, x):
        end = time.thread_time() + 0.01 * len(x)
        while time.thread_time() < end:
            pass
        return x.flatten(1)[:, :5]


def scans_to_features(encoder):
    return Compose([LoadScand("image"), SliceBagd("image", spatial_size=8), EncodeInstancesd("image", encoder)])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("monai_mil_ext.apps.check.encoding_estimate.SECONDS", 0.2)


def test_time_and_size_are_within_a_factor_of_two_of_the_truth(tmp_path):
    encoder = Slow()
    cache = FeatureCache(tmp_path / "features", scans_to_features(encoder), progress=False)
    plan = EncodingPlan(encoder, 8, transform=cache.transform, cache=cache)
    rows = scan_rows(tmp_path, shape=(12, 11, 20))
    found = check(tmp_path, rows, SCANS, encoding=plan).estimate
    items = [{**row, "image": str(tmp_path / row["image"])} for row in rows]
    start = time.process_time()
    cache(items)
    seconds = time.process_time() - start
    size = sum(file.stat().st_size for file in cache.folder.iterdir())
    assert (found.num_cases, found.num_encoded, found.num_instances) == (8, 0, 160)
    assert 0.5 < found.seconds / seconds < 2
    assert 0.5 < found.size / size < 2
    assert 50 < found.speed <= 100


def test_what_is_encoded_already_is_not_counted(tmp_path):
    encoder = Slow()
    cache = FeatureCache(tmp_path / "features", scans_to_features(encoder), progress=False)
    rows = scan_rows(tmp_path)
    items = [{**row, "image": str(tmp_path / row["image"])} for row in rows]
    cache(items[:3])
    plan = EncodingPlan(encoder, 8, transform=cache.transform, cache=cache)
    found = check(tmp_path, rows, SCANS, encoding=plan)
    assert (found.estimate.num_encoded, found.estimate.num_instances) == (3, 50)
    assert [row["encoded"] for row in found.rows] == [True] * 3 + [False] * 5
    assert "for 8 cases, of which 3 are encoded already" in found.text()
    cache(items)
    assert "All 8 cases are encoded already." in check(tmp_path, rows, SCANS, encoding=plan).text()


def test_the_tiles_of_slides_are_those_with_tissue(tmp_path):
    tiles = TileBagd("image", grid=TileGrid(50, mpp=0.5), dtype=torch.uint8)
    rows = []
    for i in range(6):
        write_slide(tmp_path / f"s{i}.tiff", stained((600, 900), (100, 100, 500, 500), seed=i))
        rows.append({"case_id": f"c{i}", "patient": f"p{i}", "image": f"s{i}.tiff", "label": i % 2})
    plan = EncodingPlan(Slow(), 50, 3, transform=Compose([tiles, EncodeInstancesd("image", Slow())]))
    found = check(tmp_path, rows, CheckSettings("slides", tiles=tiles, num_folds=3), encoding=plan)
    assert found.rows[0]["tiles"] == 12 * 18
    exact = len(tiles({"image": str(tmp_path / "s0.tiff")})["image"])
    assert found.estimate.num_instances == pytest.approx(6 * exact, rel=0.1)
    assert "tissue was looked at in" in messages(found.notes)


def test_a_cohort_of_feature_files_or_of_problems_has_no_estimate(tmp_path):
    assert check(tmp_path, bag_rows(tmp_path), BAGS, encoding=EncodingPlan(Slow(), 8)).estimate is None
    rows = [{**row, "image": "lost.nii"} for row in scan_rows(tmp_path)]
    assert check(tmp_path, rows, SCANS, encoding=EncodingPlan(Slow(), 8)).estimate is None


def test_missing_weights_and_unmeasured_reading_are_noted(tmp_path):
    found = check(tmp_path, scan_rows(tmp_path), SCANS, encoding=EncodingPlan(Slow(), None, weights="lost.pth"))
    assert "the weights of the encoder are missing" in messages(found.notes)
    assert "reading was not measured" in messages(found.notes)


@pytest.mark.parametrize(
    ("seconds", "size", "text"),
    [
        (0.2, 10, "1 s and 1 MB"),
        (80, 4e7, "80 s and 40 MB"),
        (1440, 3e8, "24 min and 0.3 GB"),
        (9000, 3e10, "2.5 h and 30.0 GB"),
    ],
)
def test_the_sentence_has_round_numbers(seconds, size, text):
    assert f"about {text} for 9 cases (2 instances/s)" in EncodingEstimate(9, 0, 9, seconds, int(size), 2.0).sentence
    assert np.isfinite(seconds)


def test_the_clock_stands_still_while_others_have_the_core(tmp_path, monkeypatch):
    schedule = tmp_path / "schedstat"
    monkeypatch.setattr(module, "SCHEDULE", schedule)
    before = module._clock()
    schedule.write_text("7 5000000000 3")
    assert -5 < module._clock() - before < -4
