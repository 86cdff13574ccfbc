"""Tests of the gradients of every factorial cell of QGMIL, with every pooling and with shared keys."""

import itertools

import pytest
import torch

from monai_mil_ext.networks.nets import QGMIL, QGMILBlock
from tests.networks.qgmil_cases import FACTORIAL, known

CELLS = {
    "-".join(map(str, (*block.values(), pooling, f"kv{heads}"))): (block | {"num_kv_heads": heads}, pooling)
    for block, pooling, heads in itertools.product(FACTORIAL, ("attention", "cls", "mean", "max"), (1, 2))
}


@pytest.mark.slow(buys="exact gradients in each factorial cell and pooling")
@pytest.mark.parametrize(("block", "pooling"), CELLS.values(), ids=CELLS)
def test_qgmil_gradients_are_exact_in_every_factorial_cell(block, pooling):
    """Check random directions; test_qgmil.py checks all entries, for one pooling without shared keys."""
    net = known(QGMIL(4, 2, hidden_size=6, block=QGMILBlock(num_heads=2, **block), pooling=pooling).double())
    names, values = zip(*net.named_parameters(), strict=True)
    x, mask = torch.randn(2, 4, 4, dtype=torch.float64), torch.arange(4) < torch.tensor([[4], [3]])

    def call(x, *values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x, mask))

    inputs = [t.detach().clone().requires_grad_() for t in (x, *values)]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
