"""Tests of networks as code compiled by inductor; test_nets.py traces every case with `aot_eager`.

A compilation takes half a minute of a core, so these five networks stand for all, which the nightly profile compiles.
Together they cover each building block that inductor compiles differently:

- ``QGMIL``: RMS norm, gated self-attention, gated feed-forward network, gated scores, masked softmax and pooling;
- ``ASMIL``: attention of learned queries;
- ``SmAP``: compaction, chain smoothing and spectral norm;
- ``InstanceConvMIL``: one-dimensional convolution and masked maximum;
- ``TransMIL-squares``: class token, squares and position encoding of TransMIL, without Nystrom attention, whose
  pseudo-inverses alone take a minute.
"""

import os

import pytest
from torch import nn

from tests.contracts.net_cases import CASES, MASK, X
from tests.contracts.runtime_laws import inductor_agrees


class PlaceholderAttention(nn.Module):
    """Placeholder for Nystrom attention that compiles fast."""

    def forward(self, h, counts):
        return h.tanh()

    def cls_scores(self, h):
        return h[..., :2]


def transmil_on_squares():
    net = CASES["TransMIL"]()
    net.attend1, net.attend2 = PlaceholderAttention(), PlaceholderAttention()
    return net


FIRST_CASES = {name.split("-")[0]: make for name, make in reversed(CASES.items())}  # the first case of each class
BLOCKS = {name: FIRST_CASES[name] for name in ("QGMIL", "ASMIL", "SmAP", "InstanceConvMIL")}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SELECTED = FIRST_CASES if NIGHTLY else BLOCKS | {"TransMIL-squares": transmil_on_squares}


@pytest.mark.slow(buys="machine code gives the logits and gradients of each kind of block")
@pytest.mark.parametrize("make", SELECTED.values(), ids=SELECTED)
def test_law_inductor_agrees(make):
    inductor_agrees(make, X, MASK)
