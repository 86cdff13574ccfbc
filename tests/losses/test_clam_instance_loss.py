"""Tests of the instance loss of CLAM."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.losses import CLAMInstanceLoss

LOGITS = torch.randn(3, 2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABEL = torch.tensor([1, 0, 1])


def by_hand(logits, label, k, subtyping):
    """Return the loss of one bag with k instances of highest attention and k of lowest, of three slots each."""
    inside = torch.cat([logits[label, :k], logits[label, 3 : 3 + k]])
    terms = [cross_entropy(inside, torch.tensor([1] * k + [0] * k))]
    if not subtyping:
        return terms[0]
    terms += [cross_entropy(logits[c, :k], torch.zeros(k, dtype=torch.long)) for c in range(2) if c != label]
    return sum(terms) / 2


@pytest.mark.parametrize("subtyping", [False, True])
def test_loss_of_bags_of_all_sizes_is_the_mean_of_single_ones(subtyping):
    loss, counts = CLAMInstanceLoss("cross_entropy", subtyping), torch.tensor([9, 2, 0])
    expected = (by_hand(LOGITS[0], 1, 3, subtyping) + by_hand(LOGITS[1], 0, 2, subtyping)) / 2
    assert_close(loss(LOGITS, LABEL, counts), expected)
    assert_close(loss(LOGITS[:1], LABEL[:1]), by_hand(LOGITS[0], 1, 3, subtyping))


def test_disjoint_takes_half_of_a_small_bag():
    loss = CLAMInstanceLoss("cross_entropy", disjoint=True)
    assert_close(loss(LOGITS[:1], LABEL[:1], torch.tensor([5])), by_hand(LOGITS[0], 1, 2, False))
    assert loss(LOGITS[:1], LABEL[:1], torch.tensor([1])) == 0


def test_bags_without_instances_give_zero_and_no_gradient():
    z = LOGITS.clone().requires_grad_()
    value = CLAMInstanceLoss()(z, LABEL, torch.zeros(3))
    value.backward()
    assert value == 0
    assert not z.grad.any()


@pytest.mark.parametrize(
    ("logits", "label", "match"),
    [
        (LOGITS[:, :, :5], LABEL, r"`logits` must be floating point of shape \(B, C, 2k, 2\), got"),
        (LOGITS, LABEL[:2], r"`label` must have shape \(B,\) = \(3,\), got \(2,\)"),
        (LOGITS, LABEL + 1, "`label` must be classes from 0 to 1, got 2"),
        (LOGITS, LABEL + 0.5, "`label` must be classes from 0 to 1, got 1.5"),
    ],
)
def test_bad_input_is_named(logits, label, match):
    with pytest.raises(ValueError, match=match):
        CLAMInstanceLoss()(logits, label)


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="`loss` must be one of"):
        CLAMInstanceLoss("hinge")
