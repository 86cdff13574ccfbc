"""Tests of InferOrStatus and check_options: a failing case, and an option that fits none."""

import logging
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedEvaluator, default_prepare_batch
from monai.inferers import SimpleInferer
from monai.transforms import Compose

from monai_mil_ext.handlers import InferOrStatus, check_options
from monai_mil_ext.networks.nets import ABMIL, BagOutputWrapper
from monai_mil_ext.transforms import InstanceScoresd, UnpackBagOutputd


def infer(batch, network):
    engine = SimpleNamespace(state=SimpleNamespace(batch=batch), logger=logging.getLogger())
    return InferOrStatus(SimpleInferer(), engine)(torch.ones(2, 3, 4), network)


def fail_with(error):
    def network(x):
        raise error

    return network


def test_infer_or_status_returns_the_output_of_the_network():
    batch = {}
    assert torch.equal(infer(batch, lambda x: x + 1), torch.full((2, 3, 4), 2.0))
    assert batch == {}


def test_infer_or_status_marks_the_cases_of_a_batch_that_fails():
    batch = {"status": ["done", "empty"]}
    assert infer(batch, fail_with(ValueError("`x` must be a bag, got none."))).tolist() == [[0], [0]]
    assert batch["status"] == ["failed: `x` must be a bag, got none.", "empty"]
    batch = {}
    infer(batch, fail_with(torch.OutOfMemoryError("CUDA out of memory")))
    assert batch["status"] == ["failed: OutOfMemoryError: CUDA out of memory"] * 2


def test_infer_or_status_raises_mistakes_of_the_program():
    with pytest.raises(TypeError, match="a mistake"):
        infer({}, fail_with(TypeError("a mistake")))


def test_infer_or_status_wraps_an_inferer_once():
    engine = evaluator(per_class=False)
    for _ in range(2):
        InferOrStatus.wrap(engine)
        assert isinstance(engine.inferer.inferer, SimpleInferer)
    InferOrStatus.wrap(SimpleNamespace())


def evaluator(per_class):
    net = ABMIL(4, 3, hidden_size=8, per_class=per_class)
    return SupervisedEvaluator("cpu", [], BagOutputWrapper(net), epoch_length=1, prepare_batch=default_prepare_batch)


def postprocessing(head):
    return Compose([UnpackBagOutputd("pred"), InstanceScoresd("attention", head=head)])


@pytest.mark.parametrize(("per_class", "head"), [(False, None), (False, 0), (True, 2), (True, "predicted")])
def test_check_options_accepts_an_attention_that_the_network_has(per_class, head):
    check_options(evaluator(per_class), postprocessing(head), {"image": [4]})


@pytest.mark.parametrize(
    ("per_class", "head", "message"),
    [
        (False, 3, "`head` must be from 0 to 0, got 3"),
        (True, 3, "`head` must be from 0 to 2, got 3"),
        (False, "predicted", "`head` 'predicted' must have attention for each of the classes, got 1 weights"),
    ],
)
def test_check_options_refuses_an_attention_that_the_network_lacks(per_class, head, message):
    with pytest.raises(ValueError, match=message):
        check_options(evaluator(per_class), postprocessing(head), {"image": [4]})
