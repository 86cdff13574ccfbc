"""Tests of packed batches: layout, packing, unpacking, and when a batch is packed."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.layers.packed import MIN_PADDING, pack, packed_layout, unpack

LONG = torch.arange(200) < torch.tensor([[200], [3], [0]])


def test_pack_and_unpack_are_inverse():
    scattered = LONG[:, torch.randperm(200)]
    x = torch.randn(3, 200, 4).where(scattered[..., None], torch.nan).requires_grad_()
    layout = packed_layout(scattered)
    packed = pack(x, layout)
    assert layout.sizes == [200, 3]
    assert_close(packed[0], torch.cat([x[i, real] for i, real in enumerate(scattered)]), rtol=0, atol=0)
    back = unpack(2 * packed, layout, x)
    assert_close(back[scattered], 2 * x[scattered], rtol=0, atol=0)
    assert not back[~scattered].any()
    back.square().sum().backward()
    assert_close(x.grad[scattered], 8 * x[scattered], rtol=0, atol=0)
    assert not x.grad[~scattered].any()
    assert unpack(x, None, x) is x


@pytest.mark.parametrize(
    "mask",
    [
        None,
        torch.ones(2, 300).bool(),
        torch.arange(300) < torch.tensor([[300], [300 - 2 * MIN_PADDING + 1]]),
        torch.zeros(2, 300).bool(),
        torch.zeros(9, MIN_PADDING).bool(),
        torch.zeros(2, 0).bool(),
    ],
    ids=["none", "all-real", "little-padding", "empty", "small-bags", "no-slots"],
)
def test_packed_layout_is_none_with_little_padding(mask):
    assert packed_layout(mask) is None


def test_packed_layout_is_a_layout_with_much_padding():
    assert packed_layout(torch.arange(300) < torch.tensor([[300], [300 - 2 * MIN_PADDING]])) is not None


def test_packed_layout_is_none_in_traced_and_compiled_programs(monkeypatch):
    def count(mask):
        return mask.sum() if packed_layout(mask) is None else mask.sum() * 0

    assert count(LONG) == 0
    assert torch.jit.trace(count, LONG, check_trace=False)(LONG) == 203
    assert torch.compile(count, backend="eager", fullgraph=True)(LONG) == 203
