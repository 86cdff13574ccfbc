"""Tests of RandFeatureJitter in both forms, and the effect of MONAI's own transforms on (N, F)."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import NormalizeIntensity, RandGaussianNoise
from monai.utils import set_determinism

from monai_mil_ext.transforms import RandFeatureJitter, RandFeatureJitterd


def test_rand_feature_jitter_is_shared_by_instances_and_independent_for_features():
    bag = torch.randn(50, 8, dtype=torch.float64)
    moved = RandFeatureJitter(scale=0.0, shift=2.0).set_random_state(0)(bag) - bag
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    assert len(moved[0].unique()) == 8
    ratio = RandFeatureJitter(scale=0.5, shift=0.0).set_random_state(0)(bag) / bag
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_rand_feature_jitter_has_the_given_standard_deviations():
    """40,000 draws each: three standard errors of a standard deviation are 1 %."""
    bag = np.array([[0.0] * 40_000, [1.0] * 40_000])
    zeros, ones = RandFeatureJitter(scale=0.3, shift=0.2).set_random_state(1)(bag)
    assert zeros.std() == pytest.approx(0.2, rel=0.02)
    assert (ones - zeros).std() == pytest.approx(0.3, rel=0.02)
    assert [zeros.mean(), (ones - zeros).mean()] == pytest.approx([0, 1], abs=0.01)
    assert abs(np.corrcoef(zeros, ones - zeros)[0, 1]) < 0.02


def test_rand_feature_jitter_with_a_shift_per_feature():
    jitter = RandFeatureJitter(scale=0.0, shift=np.array([0.0, 1.0, 100.0])).set_random_state(0)
    shifts = np.stack([jitter(np.zeros((1, 3)))[0] for _ in range(200)])
    assert shifts.std(axis=0) == pytest.approx([0, 1, 100], rel=0.2)


def test_rand_feature_jitter_moves_the_mean_of_a_large_bag_unlike_gaussian_noise():
    bag = torch.zeros(10_000, 64)
    noise = RandGaussianNoise(prob=1.0, std=0.1, sample_std=False).set_random_state(0)(bag).mean(0).std()
    jitter = RandFeatureJitter(scale=0.0, shift=0.1).set_random_state(0)(bag).mean(0).std()
    assert noise < 0.0015
    assert jitter == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rand_feature_jitter_preserves_the_dtype(dtype):
    for bag in (torch.ones(3, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype).numpy()):
        assert RandFeatureJitter()(bag).dtype == bag.dtype


def test_rand_feature_jitter_repeats_shares_and_skips_draws():
    jitter, bag = RandFeatureJitter().set_random_state(0), np.ones((2, 5))
    first = jitter(bag)
    assert (jitter(bag, randomize=False) == first).all()
    assert (jitter(bag) != first).any()
    out = RandFeatureJitterd(("x", "y", "absent"), allow_missing_keys=True)({"x": bag, "y": bag[:1], "label": 1})
    assert (out["x"][0] == out["y"][0]).all()
    assert (RandFeatureJitter(prob=0.0)(bag) == bag).all()
    often = RandFeatureJitter(prob=0.3).set_random_state(0)
    assert np.mean([(often(bag) != bag).any() for _ in range(500)]) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rand_feature_jitter_is_deterministic_in_workers(num_workers):
    def run():
        set_determinism(0)
        data = Dataset([{"image": np.ones((2, 3))}] * 4, RandFeatureJitterd("image"))
        images = [batch["image"].tolist() for _ in range(2) for batch in DataLoader(data, num_workers=num_workers)]
        set_determinism(None)
        return images

    first = run()
    assert first == run()
    assert len({str(bag) for bag in first}) > 4


def test_normalize_intensity_standardizes_features_by_stored_statistics():
    """MONAI has this transform, so the package has none. A constant feature is only centered."""
    mean, std = np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 0.0])
    bag = torch.tensor([[2.0, 12.0, 3.0], [0.0, 2.0, 4.0]])
    out = NormalizeIntensity(subtrahend=mean, divisor=std)(bag)
    assert out.tolist() == [[1, 1, 0], [-1, 0, 1]]
    assert bag.tolist() == [[2, 12, 3], [0, 2, 4]]


def test_rand_feature_jitter_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`scale` must be finite and >= 0, got -0\.1"):
        RandFeatureJitter(scale=-0.1)
    for shift in (-1.0, np.inf, np.ones((2, 2))):
        with pytest.raises(ValueError, match=r"`shift` must be a number or \(F,\), finite and >= 0, got"):
            RandFeatureJitter(shift=shift)
    with pytest.raises(ValueError, match=r"`bag` must be floating \(N, F\), got \(2, 3, 1\) of float64"):
        RandFeatureJitter()(np.ones((2, 3, 1)))
    with pytest.raises(ValueError, match=r"`bag` must be floating \(N, F\), got \(2, 3\) of torch.int64"):
        RandFeatureJitter()(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`shift` must be a number or have the 3 features, got \(2,\)"):
        RandFeatureJitter(shift=np.ones(2))(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`bag` must have the features of the last draw \(3\), got 2"):
        RandFeatureJitterd(("x", "y"))({"x": np.ones((2, 3)), "y": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"`bag` must have the features of the last draw \(none\), got 2"):
        RandFeatureJitter()(np.ones((1, 2)), randomize=False)
