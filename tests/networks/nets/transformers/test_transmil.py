"""Tests of TransMIL and SequenceTransMIL beyond the laws of all networks, which are in tests/contracts."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import SequenceTransMIL, TransMIL
from tests.golden import reference_transmil as reference
from tests.helpers import fill

F, C, SIZES = 6, 2, [11, 1, 5, 0, 4]
X = np.cos(np.arange(len(SIZES) * 11 * F) * 0.37).reshape(len(SIZES), 11, F)
SEQUENCE = reference.weights(reference.sequence_shapes(F, C))
SQUARE = reference.weights(reference.square_shapes(F, C, 8, 2))
FORMS = {
    "sequence": (lambda: SequenceTransMIL(F, C, num_heads=2), lambda bag: reference.sequence(bag, SEQUENCE, 2)),
    "square": (lambda: TransMIL(F, C, hidden_size=8, num_heads=2), lambda bag: reference.square(bag, SQUARE, 2, 4)),
}
both = pytest.mark.parametrize(("make", "expected"), FORMS.values(), ids=FORMS)


@both
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
def test_transmil_matches_reference(make, expected, dtype, tolerance):
    mask = torch.arange(11) < torch.tensor(SIZES)[:, None]
    out = fill(make().to(dtype)).forward_bag(torch.tensor(X, dtype=dtype), mask)
    for i, n in enumerate(SIZES):
        got = out.logits[i], out.embedding[i], out.scores[i, :n], out.attention[i, :n]
        for ours, theirs in zip(got, expected(X[i, :n]), strict=True):
            assert_close(ours, torch.tensor(theirs, dtype=dtype), rtol=tolerance, atol=tolerance)


@both
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 10])
def test_transmil_arranges_any_number_of_instances_in_a_square(make, expected, n):
    x = torch.tensor(X.reshape(-1, F)[:n]).unsqueeze(0)
    assert_close(fill(make().double())(x)[0], torch.tensor(expected(x[0].numpy())[0]), rtol=1e-9, atol=1e-9)


@both
def test_transmil_ignores_padding_between_instances(make, expected):
    net, mask = fill(make().double()), torch.tensor([[0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 1]]) > 0
    x = torch.tensor(X[:1])
    out, alone = net.forward_bag(x, mask), net.forward_bag(x[:, mask[0]])
    assert_close(out.logits, alone.logits, rtol=1e-9, atol=1e-9)
    assert_close(out.attention[:, mask[0]], alone.attention, rtol=1e-9, atol=1e-9)
    assert_close(out.scores[:, mask[0]], alone.scores, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("net", "count"),
    [(SequenceTransMIL(768, 1), 4_743_169), (TransMIL(1024, 2), 2_672_146)],
    ids=["sequence", "square"],
)
def test_transmil_has_the_published_number_of_parameters(net, count):
    assert sum(p.numel() for p in net.parameters()) == count


def test_sequence_transmil_leaves_out_attention_to_the_class_token():
    net, whole = SequenceTransMIL(16, 2).eval(), []
    net.norm2.register_forward_hook(lambda _, args, h: whole.append(net.attend2.cls_scores(h).softmax(1)))
    out = net.forward_bag(torch.rand(2, 5, 16))
    assert_close(out.attention.sum(1) + whole[0][:, 0], torch.ones(2, 8))
    assert (out.attention.sum(1) < 1).all()


def test_sequence_transmil_attention_passes_attention_tap():
    net, seen = SequenceTransMIL(16, 2).eval(), []
    net.attention_tap.register_forward_hook(lambda *args: seen.append(args[-1]))
    assert torch.equal(net.forward_bag(torch.rand(2, 5, 16)).attention, seen[0])


def test_transmil_dropout_is_active_in_training_only():
    net, x = TransMIL(6, 2, hidden_size=8, num_heads=2, dropout=0.9), torch.rand(2, 5, 6)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SequenceTransMIL(6, 2, num_heads=4), "`num_heads` must divide the size 6 of a token, got 4"),
        (lambda: TransMIL(6, 2, hidden_size=6, num_heads=4), "`num_heads` must divide the size 6 of a token, got 4"),
        (lambda: TransMIL(6, 0), "`num_classes` must be a positive integer, got 0"),
        (lambda: TransMIL(6, 2, dropout=1.0), r"`dropout` must be in \[0, 1\), got 1.0"),
    ],
)
def test_transmil_rejects_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
