"""Tests that MONAI's gradient accumulation over bags equals a large batch."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from monai_mil_ext.data import BagCollate
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import F, make_trainer

SIZES = (9, 2, 30, 4, 7, 1)


def bags():
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randn(n, F, generator=generator, dtype=torch.float64), "label": torch.tensor(i % 2)}
        for i, n in enumerate(SIZES)
    ]


def trained(groups, loss, steps):
    """Return the parameters after one epoch of batches of the given bags."""
    torch.manual_seed(0)
    network = ABMIL(F, 2, hidden_size=8).double()
    batches = [BagCollate("image")([bags()[i] for i in group]) for group in groups]
    trainer = make_trainer(network, batches, accumulation_steps=steps)
    trainer.loss_function = loss
    trainer.run()
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def bag_sum(steps):
    """Return the loss that docs/how-to/cohorts.md recommends: every bag has weight 1 / 6."""
    return lambda logits, label: steps * cross_entropy(logits, label, reduction="sum") / 6


WHOLE = [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("groups", "loss"),
    [
        ([[0, 1], [2, 3], [4, 5]], cross_entropy),
        ([[0, 1], [2, 3], [4, 5]], bag_sum(3)),
        ([[2], [0, 4], [1, 3, 5]], bag_sum(3)),
    ],
    ids=["mean, equal", "sum, equal", "sum, unequal"],
)
def test_accumulation_steps_equal_one_large_batch(groups, loss):
    whole = trained(WHOLE, cross_entropy, 1)
    assert (whole - trained(WHOLE, bag_sum(1), 1)).abs().max() < 1e-12
    assert (trained(groups, loss, 3) - whole).abs().max() < 1e-6


def test_accumulation_steps_with_a_mean_over_unequal_batches_differ():
    """Check the reason to recommend the sum: a single bag would weigh three times as much as one of three."""
    assert (trained([[2], [0, 4], [1, 3, 5]], cross_entropy, 3) - trained(WHOLE, cross_entropy, 1)).abs().max() > 1e-4


def test_accumulation_steps_weight_the_last_batches_equally():
    """Four batches by three: the last batch is a separate step, which MONAI divides by three as well."""
    with_sum = trained([[0], [1], [2], [3]], bag_sum(3), 3)
    torch.manual_seed(0)
    network = ABMIL(F, 2, hidden_size=8).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for group in ([0, 1, 2], [3]):
        batch = BagCollate("image")([bags()[i] for i in group])
        optimizer.zero_grad()
        (cross_entropy(network(batch["image"], batch["mask"]), batch["label"], reduction="sum") / 6).backward()
        optimizer.step()
    torch.testing.assert_close(with_sum, torch.cat([p.detach().flatten() for p in network.parameters()]))
