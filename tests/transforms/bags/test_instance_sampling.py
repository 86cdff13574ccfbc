"""Tests of RandSampleInstances and RandTokenDrop, in both forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor
from monai.utils import set_determinism
from numpy.testing import assert_allclose

from monai_mil_ext.transforms import RandSampleInstances, RandSampleInstancesd, RandTokenDrop, RandTokenDropd

seeds, sizes = st.integers(0, 999), st.integers(1, 60)


@given(size=sizes, k=st.integers(1, 80), stratified=st.booleans(), seed=seeds)
def test_rand_sample_instances_keeps_at_most_k_in_order(size, k, stratified, seed):
    out = RandSampleInstances(k, stratified).set_random_state(seed)(np.arange(size))
    assert len(out) == min(k, size)
    assert (np.diff(out) > 0).all()


@given(runs=st.integers(1, 20), length=st.integers(2, 9), seed=seeds)
def test_rand_sample_instances_stratified_covers_the_bag(runs, length, seed):
    out = RandSampleInstances(runs, stratified=True).set_random_state(seed)(np.arange(runs * length))
    assert (out // length).tolist() == list(range(runs))


@given(size=sizes, rate=st.floats(0, 0.999), seed=seeds)
def test_rand_token_drop_by_rate_keeps_at_least_one_in_order(size, rate, seed):
    out = RandTokenDrop(rate=rate).set_random_state(seed)(np.arange(size))
    assert 1 <= len(out) <= size
    assert (np.diff(out) > 0).all()


@given(size=sizes, drop=st.integers(1, 80), seed=seeds)
def test_rand_token_drop_by_number_keeps_at_least_one(size, drop, seed):
    assert len(RandTokenDrop(num_drop=drop).set_random_state(seed)(np.arange(size))) == max(1, size - drop)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [(RandTokenDrop(rate=0.3), 0.7), (RandSampleInstances(20), 0.2), (RandSampleInstances(20, stratified=True), 0.2)],
    ids=["rate", "uniform", "stratified"],
)
def test_rand_sample_instances_and_rand_token_drop_keep_all_instances_equally_often(transform, expected):
    transform.set_random_state(0)
    kept = np.bincount(np.concatenate([transform(np.arange(100)) for _ in range(4000)]), minlength=100) / 4000
    np.testing.assert_allclose(kept, expected, atol=0.04)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor], ids=["numpy", "torch", "meta"])
@pytest.mark.parametrize("form", [RandSampleInstancesd, RandTokenDropd])
def test_rand_sample_instancesd_and_rand_token_dropd_share_one_draw_among_keys(form, kind):
    n = np.arange(50)
    data = {"image": kind(n[:, None]), "position": kind(n), "label": 1}
    transform = form(("image", "position", "absent"), **{_number(form): 7}, allow_missing_keys=True)
    out = transform.set_random_state(3)(data)
    assert type(out["image"]) is (np.ndarray if kind is np.asarray else torch.Tensor)
    assert (out["image"][:, 0] == out["position"]).all()
    assert len(out["position"]) < 50 == len(data["position"])
    assert out["label"] == 1


def test_rand_sample_instances_and_rand_token_drop_repeat_and_skip_draws():
    drop = RandTokenDrop(rate=0.5).set_random_state(0)
    first = drop(np.arange(40))
    assert (drop(np.arange(40), randomize=False) == first).all()
    assert len(RandTokenDrop(rate=0.9, prob=0.0)(np.arange(40))) == 40


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rand_sample_instances_and_rand_token_drop_are_deterministic_in_workers(num_workers):
    def run():
        set_determinism(0)
        data = Dataset([{"image": np.arange(30)}] * 4, RandSampleInstancesd("image", 5))
        images = [batch["image"].tolist() for _ in range(2) for batch in DataLoader(data, num_workers=num_workers)]
        set_determinism(None)
        return images

    first = run()
    assert first == run()
    assert len({str(bag) for bag in first}) > 2


def test_rand_sample_instances_and_rand_token_drop_name_invalid_arguments():
    with pytest.raises(ValueError, match=r"same number of instances, got \{'image': 3, 'position': 2\}"):
        RandSampleInstancesd(("image", "position"), 2)({"image": np.zeros((3, 1)), "position": np.zeros(2)})
    with pytest.raises(ValueError, match="`rate` or `num_drop` must be given, and not both, got None and None"):
        RandTokenDrop()
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\), got 1.0"):
        RandTokenDrop(rate=1.0)
    with pytest.raises(ValueError, match="`bag` must have at least one instance, got 0"):
        RandSampleInstances(2)(np.zeros(0))
    with pytest.raises(ValueError, match="`num_instances` must be a positive integer, got 0"):
        RandSampleInstances(0)


def _number(form):
    return "num_instances" if form is RandSampleInstancesd else "num_drop"


@pytest.mark.parametrize(("size", "num", "block"), [(100, 20, 5), (103, 20, 8), (64, 63, 64), (7, 3, 100), (9, 8, 4)])
def test_rand_sample_instances_draws_whole_blocks(size, num, block):
    kept = RandSampleInstances(num, block_size=block).set_random_state(1)(np.arange(size))
    assert len(kept) == num
    assert (np.diff(kept) > 0).all()
    counts = np.bincount(kept // block, minlength=-(-size // block))
    whole = np.diff(np.minimum(np.arange(len(counts) + 1) * block, size))
    assert ((counts == 0) | (counts == whole)).sum() >= len(counts) - 1  # all but the last drawn one are whole


def test_rand_sample_instances_draws_all_blocks_equally_often():
    sample = RandSampleInstances(6, block_size=3).set_random_state(0)
    counts = np.bincount(np.concatenate([sample(np.arange(30)) for _ in range(5000)]), minlength=30)
    assert_allclose(counts / 5000, 0.2, atol=0.02)  # 3.5 standard errors


def test_rand_sample_instances_of_blocks_has_the_design_effect():
    """The mean of b neighbors that are the same is that of one instance."""
    values = np.repeat(np.random.RandomState(0).randn(200), 5)
    means = {
        b: np.var([sample(values).mean() for _ in range(3000)])
        for b in (1, 5)
        for sample in [RandSampleInstances(50, block_size=b).set_random_state(b)]
    }
    assert_allclose(means[5] / means[1], 5.0, rtol=0.15)


def test_rand_sample_instances_in_blocks_rejects_bad_options():
    with pytest.raises(ValueError, match="`block_size` must be 1 with `stratified`, got 4"):
        RandSampleInstances(8, stratified=True, block_size=4)
    with pytest.raises(ValueError, match="`block_size` must be a positive integer, got 0"):
        RandSampleInstances(8, block_size=0)
