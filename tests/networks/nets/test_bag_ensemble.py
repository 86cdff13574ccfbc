"""Tests of BagEnsemble: the average of every task, saturated logits, attention; common laws are in tests/contracts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL, BagEnsemble, MeanMIL, SmAP
from monai_mil_ext.utils import logits_to_probabilities
from tests.helpers import bags

F = 4
TASKS = {"classification": 3, "multilabel": 3, "ordinal": 3, "survival": 4}


def ensemble(task="classification", num_classes=3):
    torch.manual_seed(0)
    return BagEnsemble([ABMIL(F, num_classes, attention_size=5) for _ in range(3)], task).double().eval()


@pytest.mark.parametrize(("task", "num_logits"), [*TASKS.items(), ("classification", 1)])
@given(batch=bags(F, dtype=torch.float64))
def test_ensemble_averages_the_probabilities_of_its_members(task, num_logits, batch):
    net = ensemble(task, num_logits)
    each = [logits_to_probabilities(member(*batch), task) for member in net.members]
    assert_close(logits_to_probabilities(net(*batch), task), torch.stack(each).mean(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", ["regression", "cox"])
@given(batch=bags(F, dtype=torch.float64))
def test_ensemble_averages_values_and_risks(task, batch):
    net = ensemble(task, 1)
    assert_close(net(*batch), torch.stack([member(*batch) for member in net.members]).mean(0))


@pytest.mark.parametrize("task", [*TASKS, "regression", "cox"])
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 5.0]))
def test_ensemble_of_equal_members_has_their_logits(task, seed, scale):
    torch.manual_seed(seed)
    z = torch.randn(2, 4, dtype=torch.float64) * scale
    average = BagEnsemble([MeanMIL(F, 4)], task).average(torch.stack([z, z, z]))
    expected = {"classification": z.log_softmax(1), "ordinal": z.cummin(1).values}.get(task, z)
    assert_close(average, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ensemble_is_exact_for_saturated_logits(dtype):
    """Check logits whose probabilities round to 0 or 1, of which a mean has no logarithm."""
    z = torch.tensor([[[-200.0, -200.0]], [[-300.0, 150.0]]], dtype=dtype)
    one, half = -200 - math.log(2), 0.0  # (e^-200 + e^-300) / 2; (0 + 1) / 2
    assert_close(BagEnsemble([MeanMIL(F, 2)], "multilabel").average(z)[0].tolist(), [one, half])
    assert_close(BagEnsemble([MeanMIL(F, 1)]).average(z[:, :, :1])[0].tolist(), [one])
    assert_close(BagEnsemble([MeanMIL(F, 2)]).average(z).softmax(1)[0].tolist(), [0.25, 0.75])
    rare = torch.tensor([[[-60.0, -60.0]], [[-70.0, 300.0]]], dtype=dtype)
    hazards = BagEnsemble([MeanMIL(F, 2)], "survival").average(rare)
    assert_close(hazards[0].tolist(), [-60 - math.log(2) + math.exp(-10), 0.0], rtol=1e-5, atol=1e-5)
    grades = torch.tensor([[[300.0, -90.0, 5.0]], [[-90.0, 300.0, 5.0]]], dtype=dtype)
    assert_close(BagEnsemble([MeanMIL(F, 3)], "ordinal").average(grades)[0].tolist(), [0.0, -90.0, -90.0])


def test_ensemble_in_half_precision_averages_in_float32():
    z = torch.tensor([[[30.0, 0.0]], [[-30.0, 0.0]]])
    for task in TASKS:
        net = BagEnsemble([MeanMIL(F, 2)], task)
        assert_close(net.average(z.half()), net.average(z).half(), rtol=0, atol=0)


def test_ensemble_averages_attention_if_all_members_have_it():
    x, mask = torch.rand(2, 5, F), torch.arange(5) < torch.tensor([[5], [3]])
    one, two, three = ABMIL(F, 2), SmAP(F, 2), ABMIL(F, 2, num_heads=2)
    a, b, c = (net.eval().forward_bag(x, mask).attention for net in (one, two, three))
    assert_close(BagEnsemble([one, two]).eval().forward_bag(x, mask).attention, (a + b) / 2)
    several = BagEnsemble([one, three]).eval().forward_bag(x, mask)
    assert_close(several.attention, (a + c.mean(2, keepdim=True)) / 2)
    assert several.scores is None
    assert several.embedding is None


def test_ensemble_has_the_properties_that_all_members_have():
    together, mixed = BagEnsemble([ABMIL(F, 2), MeanMIL(F, 2)]), BagEnsemble([ABMIL(F, 2), SmAP(F, 2)])
    assert (together.permutation_invariant, mixed.permutation_invariant) == (True, False)


def test_ensemble_rejects_bad_options():
    with pytest.raises(ValueError, match="`members` must be one or more networks, got none"):
        BagEnsemble([])
    with pytest.raises(ValueError, match=r"`task` must be one of .*'cox', got 'detection'"):
        BagEnsemble([MeanMIL(F, 2)], "detection")
