"""Tests of the base class of networks that pool by attention."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.nets import AttentionPoolNet


class Plain(AttentionPoolNet):
    """Network with one score per instance."""

    in_features = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))

    def score_instances(self, x):
        return 3 * x, x @ self.weight.t()

    def classify_pooled(self, pooled):
        return pooled.flatten(1) + 1, pooled.flatten(1)


X = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]])
MASK = torch.tensor([[True, True, False]])


def test_output_is_that_of_the_equation():
    out = Plain().forward_bag(X)
    attention = torch.tensor([[1.0], [-2.0], [-2.0]]).softmax(0)
    assert_close(out.scores, torch.tensor([[[1.0], [-2.0], [-2.0]]]))
    assert_close(out.attention, attention[None])
    assert_close(out.embedding, (attention * 3 * X[0]).sum(0)[None])
    assert_close(out.logits, out.embedding + 1)


def test_padding_changes_nothing():
    dirty = X.where(MASK[..., None], torch.nan)
    assert_close(Plain()(dirty, MASK), Plain()(X[:, :2]))


def test_challenged_scores_change_attention_and_not_the_scores_of_the_output():
    class Challenged(Plain):
        def challenge(self, scores, h, mask):
            return scores.masked_fill(scores == scores.amax(1, keepdim=True), -1e9)

    out = Challenged().forward_bag(X)
    assert_close(out.scores, Plain().forward_bag(X).scores)
    assert_close(out.attention.flatten(), torch.tensor([0.0, 0.5, 0.5]))


def test_input_is_checked():
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, N, 2\), got \(1, 3, 5\)"):
        Plain()(torch.zeros(1, 3, 5))
