"""Tests of the choice of hidden instances."""

import math

import pytest
import torch

from monai_mil_ext.handlers import HiddenInstances

SIZES = torch.tensor([13, 1, 0, 2, 8])
MASK = torch.arange(13) < SIZES[:, None]


def scores(rows=1):
    return torch.randn(5, 13, rows, generator=torch.Generator().manual_seed(rows)).masked_fill(
        ~MASK[..., None], torch.nan
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"high": 0.2, "candidates": 1.0}, lambda n: math.ceil(0.2 * n)),
        ({"high": 0.2, "candidates": 0.5}, lambda n: math.ceil(0.5 * math.ceil(0.4 * n))),
        ({"high": 0.5, "candidates": 0.3}, lambda n: math.ceil(0.5 * n)),
        ({"high": 0.0, "low": 0.3}, lambda n: math.ceil(0.3 * n)),
        ({"high": 0.0, "random": 0.45}, lambda n: math.ceil(0.45 * n)),
        ({"high": 0.0, "random": 1.0}, lambda n: n),
        ({"high": 0.0}, lambda _: 0),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "count",
)
@pytest.mark.parametrize("rows", [1, 3])
def test_number_of_hidden_instances_is_that_of_each_bag(options, count, rows):
    hidden = HiddenInstances(**options)(scores(rows), MASK)
    assert not hidden[~MASK].any()
    expected = [min(count(n), max(n - 1, 0)) for n in SIZES.tolist()]
    assert hidden.sum(1).tolist() == expected


def test_high_and_low_are_those_of_the_scores():
    z = torch.tensor([5.0, 1, 9, 3, 7, 2]).view(1, 6, 1)
    everywhere = torch.ones(1, 6, dtype=torch.bool)
    hidden = HiddenInstances(high=1 / 3, low=1 / 6, candidates=1.0)(z, everywhere)
    assert hidden[0].nonzero().flatten().tolist() == [1, 2, 4]
    some = HiddenInstances(high=1 / 6, candidates=0.5)
    drawn = {some(z, everywhere)[0].nonzero().item() for _ in range(40)}
    assert drawn == {2, 4}  # one of the two highest


def test_rows_vote():
    rows = torch.tensor([[9.0, 8, 0, 1, 2], [0, 9, 8, 1, 2], [1, 9, 0, 8, 2]]).T.unsqueeze(0)
    hidden = HiddenInstances(high=0.4, candidates=1.0)(rows, torch.ones(1, 5, dtype=torch.bool))
    assert hidden[0, 1]  # the only one with three votes
    assert hidden.sum() == 2


def test_one_instance_remains_and_nothing_is_drawn_without_fractions():
    hide = HiddenInstances(high=1.0, low=1.0, candidates=1.0)
    left = {(MASK[:1] & ~hide(scores()[:1], MASK[:1])).nonzero()[0, 1].item() for _ in range(99)}
    assert len(left) > 1
    state = torch.get_rng_state()
    HiddenInstances(high=0.0)(scores(), MASK)
    HiddenInstances(high=0.0).scaled(0.5)
    assert torch.equal(torch.get_rng_state(), state)
    assert not HiddenInstances(high=0.0).hides_any


def test_fractions_are_checked():
    with pytest.raises(ValueError, match="`low` must be"):
        HiddenInstances(low=1.5)
    with pytest.raises(ValueError, match="`candidates` must be positive, got 0"):
        HiddenInstances(candidates=0)
