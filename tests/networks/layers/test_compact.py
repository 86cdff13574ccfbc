"""Tests of compact, compact_order and uncompact."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_compact_moves_valid_instances_to_the_front_in_order(rows):
    mask = torch.tensor(rows)
    x, order = torch.arange(mask.numel()).view(*mask.shape, 1), compact_order(mask)
    compacted = compact(x, order)
    for bag, front, real in zip(x, compacted, mask, strict=True):
        assert_close(front[: real.sum()], bag[real])
    assert torch.equal(uncompact(compacted, order), x)
