"""Tests of the base class of handlers whose term needs the label."""

import pytest
import torch

from monai_mil_ext.handlers.losses.label_term import LabelTermHandler
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, in_float64, make_trainer


class MeanTimesLabel(LabelTermHandler):
    shape = "(B, N, S)"

    def term(self, output, label, mask, loss_function):
        assert type(label) is torch.Tensor
        return (output * mask.unsqueeze(-1) * label.view(-1, 1, 1)).mean()


def test_term_gets_output_label_and_mask():
    trainer = make_trainer(
        ABMIL(F, CLASSES).double(), in_float64(bag_batches(1)), MeanTimesLabel("score_tap", 1, "mean")
    )
    trainer.run()
    assert "mean" in trainer.state.metrics


def test_missing_label_is_named():
    handler = MeanTimesLabel("score_tap", 1, "mean", label_key="grade")
    with pytest.raises(ValueError, match="`label_key` must be one of"):
        make_trainer(ABMIL(F, CLASSES).double(), in_float64(bag_batches(1)), handler).run()
