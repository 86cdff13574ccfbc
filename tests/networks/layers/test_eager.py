"""Tests of the check for eager programs on a CPU."""

import torch
from torch.autograd import forward_ad

from monai_mil_ext.networks.layers.eager import is_eager_on_host


def answers(transform):
    """Return the answers of the check within a transform of a function."""
    seen = []

    def look(x):
        seen.append(is_eager_on_host(x))
        return x.sum()

    transform(look)
    return set(seen)


def test_an_eager_program_on_a_cpu_is_one():
    x = torch.ones(2)
    assert answers(lambda look: look(x)) == {True}
    assert answers(lambda look: look(x.clone().requires_grad_()).backward()) == {True}


def test_other_programs_and_devices_are_none():
    x = torch.ones(2)
    assert answers(lambda look: look(torch.ones(2, device="meta"))) == {False}
    assert answers(lambda look: torch.func.vmap(look)(x)) == {False}
    assert answers(lambda look: torch.func.grad(look)(x)) == {False}
    assert answers(lambda look: torch.func.jvp(look, (x,), (x,))) == {False}
    assert False in answers(lambda look: torch.jit.trace(look, x))
    with forward_ad.dual_level():
        assert answers(lambda look: look(forward_ad.make_dual(x, x))) == {False}
        assert answers(lambda look: look(x)) == {True}


def test_an_exported_program_is_none():
    class Look(torch.nn.Module):
        def forward(self, x):
            return -x if is_eager_on_host(x) else x

    x = torch.ones(2)
    assert torch.export.export(Look(), (x,)).module()(x).tolist() == [1, 1]
    assert torch.compile(Look(), backend="eager", fullgraph=True)(x).tolist() == [1, 1]
    assert Look()(x).tolist() == [-1, -1]
