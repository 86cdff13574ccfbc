"""Speed of the masked softmax relative to the plain one. ``scripts/check bench`` prints the pairs."""

import pytest
import torch

from monai_mil_ext.networks.layers import masked_softmax


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("instances", [1_000, 100_000])
def test_masked_softmax_speed(benchmark, instances, masked):
    scores, mask = torch.randn(4, instances, 1), torch.rand(4, instances) > 0.5
    benchmark.group = f"softmax over {instances}"
    benchmark(masked_softmax, scores, mask if masked else None)
