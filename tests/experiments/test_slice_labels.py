"""Tests of training with labels of slices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import write_bag


def bag(folder, name, labels):
    path = folder / f"{name}.h5"
    write_bag(path, {"features": np.zeros((len(labels), 2), np.float32), "instance_label": np.array(labels)})
    return {"case_id": name, "image": str(path), "label": int(any(labels))}


def test_oracle_slices_are_the_lesion_or_positions_of_another_lesion(tmp_path):
    from experiments.ct_protocol.slice_labels import oracle_slices

    bags = [bag(tmp_path, "a", [0, 1, 1, 0]), bag(tmp_path, "b", [0] * 8), bag(tmp_path, "c", [0] * 4)]
    kept = [item["keep"].int().tolist() for item in oracle_slices(bags, seed=0)]
    assert kept == [[0, 1, 1, 0], [0, 0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0]]
    with pytest.raises(
        ValueError, match=r"`bags` must have positive slices where they are positive, got none in \['b'\]"
    ):
        oracle_slices([{**bags[1], "label": 1}, bags[0]], seed=0)
    with pytest.raises(ValueError, match=r"`bags` must have positive slices .* got none in any bag"):
        oracle_slices(bags[1:], seed=0)


def test_oracle_slices_of_negative_bags_are_random_and_reproducible(tmp_path):
    from experiments.ct_protocol.slice_labels import oracle_slices

    bags = [bag(tmp_path, f"p{i}", np.eye(6, dtype=int)[i]) for i in range(6)]
    bags += [bag(tmp_path, f"n{i}", [0] * 6) for i in range(30)]
    first, same, other = (
        torch.stack([b["keep"] for b in oracle_slices(bags, seed)[6:]]).int().argmax(1).tolist() for seed in (0, 0, 1)
    )
    assert first == same != other
    assert set(first) == set(range(6))


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), st.integers(1, 40))
def test_resample_mask_is_never_empty(lesion, size):
    from experiments.ct_protocol.slice_labels import resample_mask

    kept = resample_mask(np.array(lesion), size)
    assert len(kept) == size
    assert kept.any()
    if size == len(lesion):
        assert kept.tolist() == lesion


def test_prepare_slice_labels_masks_padding():
    from experiments.ct_protocol.slice_labels import PrepareSliceLabels

    batch = {
        "image": torch.zeros(1, 3, 2),
        "instance_label": torch.tensor([[1, 0, 0]]),
        "mask": torch.tensor([[True, True, False]]),
    }
    _, label, _, named = PrepareSliceLabels()(batch, torch.device("cpu"))
    assert label[0, :2].tolist() == [1, 0]
    assert label[0, 2].isnan()
    assert named["mask"] is not None
