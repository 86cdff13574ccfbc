"""Tests that every network that can be exported gives the same logits in onnxruntime, for bags of any size."""

import pytest

from tests.contracts.laws import claimed
from tests.contracts.net_cases import MASK, X, every_net
from tests.contracts.runtime_laws import onnxruntime_agrees


@pytest.mark.slow(buys="onnxruntime gives each network's logits, for bags of any size")
@pytest.mark.filterwarnings("ignore:.*dynamic_axes.*", "ignore:.*LeafSpec.*")
@every_net
def test_law_onnxruntime_agrees(make):
    if claimed(onnxruntime_agrees, make):
        onnxruntime_agrees(make, X, MASK)
