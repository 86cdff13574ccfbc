"""Tests of StandardizedNet: its statistics, in the weights and in results; common laws are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL, StandardizedNet

MEAN, SCALE = [1.0, -2.0, 100.0], [0.5, 2.0, 50.0]


def standardized(**output):
    torch.manual_seed(0)
    return StandardizedNet(ABMIL(3, 1, attention_size=5), 3).set_statistics(MEAN, SCALE, **output).eval()


def test_standardized_net_gives_the_outputs_for_standardized_features():
    net, x = standardized(output_mean=40.0, output_scale=10.0), torch.randn(2, 5, 3)
    out = net.forward_bag(x * torch.tensor(SCALE) + torch.tensor(MEAN))
    expected = net.net.forward_bag(x)
    assert_close(out.logits, 40 + 10 * expected.logits)
    assert_close((out.attention, out.scores, out.embedding), expected[1:])


def test_standardized_net_changes_nothing_without_statistics():
    net, x = StandardizedNet(ABMIL(3, 2), 3).eval(), torch.randn(2, 5, 3)
    assert_close(net(x), net.net(x), rtol=0, atol=0)


def test_standardized_net_carries_its_statistics_in_the_weights():
    net, other, x = standardized(output_mean=4.0), StandardizedNet(ABMIL(3, 1, attention_size=5), 3).eval(), 3.0
    other.load_state_dict(net.state_dict())
    x = torch.randn(1, 4, 3)
    assert_close(other(x), net(x), rtol=0, atol=0)
    assert [name for name, _ in net.named_buffers()] == ["mean", "scale", "output_mean", "output_scale"]


def test_standardized_net_keeps_half_precision_features_of_large_mean():
    """Check that standardization runs in the precision of the weights under autocast: 16 bits lose a mean of 1,000."""
    net, x = StandardizedNet(ABMIL(1, 1), 1).set_statistics([1000.0], [0.5]), torch.full((1, 1, 1), 1000.5)
    seen = []
    net.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net.net.forward_bag = lambda x, mask: seen.append(x) or ABMIL(1, 1).forward_bag(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
    assert seen[0].item() == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": [1.0, 2.0]}, r"`mean` must have shape \(3,\), got \(2,\)"),
        ({"scale": [1.0, 0.0, 1.0]}, "`scale` must be positive and finite, got values from 0 to 1"),
        ({"scale": [1.0, 1e-60, 1.0]}, "`scale` must be positive and finite, got values from 1e-60 to 1"),
        ({"mean": [1.0, torch.nan, 1.0]}, "`mean` must be finite, got values from nan to nan"),
        ({"output_scale": -1.0}, "`output_scale` must be positive and finite, got values from -1 to -1"),
        ({"output_mean": [0.0, 1.0]}, r"`output_mean` must have shape \(\), got \(2,\)"),
    ],
)
def test_standardized_net_rejects_bad_statistics(values, message):
    with pytest.raises(ValueError, match=message):
        StandardizedNet(ABMIL(3, 1), 3).set_statistics(**{"mean": MEAN, "scale": SCALE, **values})


def test_standardized_net_rejects_other_features():
    with pytest.raises(ValueError, match="`in_features` must be"):
        StandardizedNet(ABMIL(3, 1), 0)
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, N, 3\), got \(1, 2, 4\)"):
        StandardizedNet(ABMIL(3, 1), 3)(torch.zeros(1, 2, 4))
