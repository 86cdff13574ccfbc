"""Tests of the recurrent network beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import RecurrentMIL, load_reference_state_dict
from tests.helpers import fill
from tests.networks.baseline_cases import TOLERANCE, expected, published_bags, published_weights, tapped


def published():
    net = RecurrentMIL(6, 9, hidden_size=5, differences=False).double()
    load_reference_state_dict(net, published_weights("recurrent_gru"))
    return net.eval()


def test_bias_of_a_slot_and_other_heads_are_refused():
    net, weights = RecurrentMIL(6, 9, hidden_size=5, differences=False).double(), published_weights("recurrent_gru")
    with pytest.raises(ValueError, match=r"not zero: attention\.b"):
        load_reference_state_dict(net, weights | {"attention.b": weights["attention.b"] + 1})
    with pytest.raises(ValueError, match=r"`net` must have 1 layer, .*, got \(1, 1, 2\)"):
        load_reference_state_dict(RecurrentMIL(6, 2, hidden_size=5), weights)


def test_recurrent_matches_the_published_code():
    net, (x, _) = published(), published_bags("recurrent_gru")
    seen = tapped(net, "slice_tap")
    out = net.forward_bag(x)
    assert_close(out.logits, expected("recurrent_gru", "logits"), **TOLERANCE)
    assert_close(out.scores[..., 0], expected("recurrent_gru", "scores"), **TOLERANCE)
    assert_close(out.attention[..., 0], expected("recurrent_gru", "attention"), **TOLERANCE)
    assert_close(seen["slice_tap"][..., 0], expected("recurrent_gru", "slice_logits"), **TOLERANCE)


def test_short_bag_in_a_batch_is_the_short_bag():
    net, (x, _) = published(), published_bags("recurrent_gru")
    seen, n = tapped(net, "slice_tap"), 9
    out = net(x.masked_fill((torch.arange(11) >= n)[None, :, None], torch.nan), (torch.arange(11) < n).expand(2, -1))
    assert_close(out, expected("recurrent_gru", "short_bag", "logits"), **TOLERANCE)
    assert_close(seen["slice_tap"][:, :n, 0], expected("recurrent_gru", "short_bag", "slice_logits"), **TOLERANCE)


def test_differences_are_to_valid_neighbors():
    net, x = fill(RecurrentMIL(3, 2, hidden_size=4)).double(), torch.rand(1, 6, 3).double()
    mask = torch.tensor([[True, False, True, True, False, True]])
    assert_close(net(x, mask), net(x[mask].unsqueeze(0)))
    rows = net._with_differences(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2]))
    assert rows[0, :2].tolist() == [[1.0, 0.0, -2.0], [3.0, 2.0, 0.0]]


def test_reversed_bag_with_exchanged_directions_mirrors():
    net = fill(RecurrentMIL(3, 2, hidden_size=4)).double()
    x = torch.rand(1, 6, 3).double()
    assert not torch.allclose(net(x.flip(1)), net(x))
    mirror = fill(RecurrentMIL(3, 2, hidden_size=4)).double()
    mirror.forward_rnn, mirror.backward_rnn = net.backward_rnn, net.forward_rnn
    with torch.no_grad():
        for rnn in (mirror.forward_rnn[0], mirror.backward_rnn[0]):  # the columns of both differences
            w = rnn.weight_ih_l0.clone()
            rnn.weight_ih_l0[:, 3:6], rnn.weight_ih_l0[:, 6:] = w[:, 6:], w[:, 3:6]
        swap = torch.cat([torch.arange(4, 8), torch.arange(4)])
        for linear in (mirror.score, mirror.classify_slice):
            linear.weight.copy_(linear.weight[:, swap])
        mirror.classify.weight.copy_(mirror.classify.weight[:, torch.cat([swap, swap + 8])])
    expected_logits = fill(RecurrentMIL(3, 2, hidden_size=4)).double()(x)
    assert_close(mirror(x.flip(1)), expected_logits)


def test_maximum_never_takes_a_state_of_padding():
    net = fill(RecurrentMIL(3, 2, hidden_size=4)).double()
    x, mask = torch.rand(1, 4, 3).double(), torch.tensor([[True, True, False, False]])
    assert_close(net.forward_bag(x, mask).embedding, net.forward_bag(x[:, :2]).embedding)


def test_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="`cell` must be one of"):
        RecurrentMIL(3, 2, cell="rnn")


def lstm_states(weights, name, x, **options):
    """Return the states (B, N, 2 H) of a layer of the published network, which has no attention."""
    net = RecurrentMIL(x.shape[2], 3, hidden_size=6, cell="lstm", **options).double()
    parts = {}
    for ours, suffix in (("forward_rnn", ""), ("backward_rnn", "_reverse")):
        for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            parts[f"{ours}.0.{part}"] = weights[f"{name}.{part}{suffix}"]
    assert not net.load_state_dict(parts, strict=False).unexpected_keys
    return net._states(x, torch.full((len(x),), x.shape[1]))


def test_states_of_lstm_match_the_published_code():
    (x, _), w = published_bags("recurrent_lstm"), published_weights("recurrent_lstm")
    first = lstm_states(w, "lstm1", x)
    second = lstm_states(w, "lstm2", first, differences=False)
    hidden = first + second + torch.cat([x, x], 2)
    for name, h in (("linear1", first), ("linear2", second)):
        hidden = hidden + torch.relu(h @ w[f"{name}.weight"].T + w[f"{name}.bias"])
    logits = hidden @ w["linear.weight"].T + w["linear.bias"]
    assert_close(logits, expected("recurrent_lstm", "slice_logits"), **TOLERANCE)
