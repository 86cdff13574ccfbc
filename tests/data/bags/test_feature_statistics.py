"""Tests of FeatureStatistics: comparison with scikit-learn on all instances, and round trip through a file."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import NormalizeIntensityd
from sklearn.preprocessing import StandardScaler

from monai_mil_ext.data import FeatureStatistics, write_bag


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 99))
def test_feature_statistics_from_items_equals_statistics_of_all_instances(sizes, seed):
    draw = np.random.default_rng(seed)
    bags = [draw.normal(3, 5, (size, 4)) for size in sizes]
    together = StandardScaler().fit(np.concatenate(bags))
    statistics = FeatureStatistics.from_items([{"image": bag} for bag in bags])
    np.testing.assert_allclose(statistics.mean, together.mean_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics.scale, together.scale_, rtol=1e-4, atol=1e-5)


def test_feature_statistics_from_items_with_files_of_a_patient(tmp_path):
    bags = np.random.default_rng(0).normal(7, 2, (2, 5, 3)).astype(np.float32)
    bags[..., 2] = 4  # never changes
    for i, bag in enumerate(bags):
        write_bag(tmp_path / f"{i}.h5", {"features": bag})
    statistics = FeatureStatistics.from_items([{"image": [str(tmp_path / "0.h5"), tmp_path / "1.h5"]}])
    transform = NormalizeIntensityd("image", subtrahend=statistics.mean, divisor=statistics.scale)
    rows = torch.cat([transform({"image": torch.from_numpy(bag)})["image"] for bag in bags])
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(0, correction=0), [1, 1, 0], atol=1e-5)


def test_feature_statistics_survive_json():
    statistics = FeatureStatistics(np.float32([1 / 3, -2e-7]), np.float32([1, 1e9]))
    values = json.loads(json.dumps([part.tolist() for part in statistics]))
    again = FeatureStatistics.from_values(*values, in_features=2)
    assert all(np.array_equal(a, b) for a, b in zip(statistics, again, strict=True))
    assert [part.dtype for part in again] == [np.float32, np.float32]


def test_feature_statistics_identity():
    statistics = FeatureStatistics.identity(3)
    assert (statistics.mean.tolist(), statistics.scale.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_feature_statistics_refuse_invalid_input():
    with pytest.raises(ValueError, match="`items` must not be empty, got none"):
        FeatureStatistics.from_items([])
    with pytest.raises(ValueError, match="`items` must hold finite features, got others in 'a'"):
        FeatureStatistics.from_items([{"image": np.array([[np.nan]]), "case_id": "a"}])
    for scale in ([1.0], [1.0, 0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="`mean` and `scale` must have 2 values, those of `scale` positive, got"):
            FeatureStatistics.from_values([0.0, 0.0], scale, in_features=2)
    assert FeatureStatistics.from_values(None, None, 3).scale.tolist() == [1, 1, 1]
