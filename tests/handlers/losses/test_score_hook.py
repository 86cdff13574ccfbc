"""Tests of ScoreHook: recorded values, and the passes in which it records."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_mil_ext.handlers import ScoreHook
from monai_mil_ext.networks.nets import ABMIL, BagOutputWrapper
from tests.handlers.training import SoftmaxInside, hook_count


class Bags(nn.Module):
    """Network that scores twice in a forward pass, or once through a checkpoint."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.score = nn.Linear(4, 1)
        self.reentrant = reentrant

    def forward(self, x, *, mask=None):
        if self.reentrant is not None:
            return checkpoint(self.score, x, use_reentrant=self.reentrant)
        self.score(x)
        return self.score(2 * x)


@pytest.fixture
def x():
    return torch.rand(2, 5, 4)


def test_score_hook_records_output_and_mask_once(x):
    net, mask = ABMIL(4, 2), torch.rand(2, 5) > 0.5
    hook = ScoreHook(net, "score_tap")
    net(x, mask)
    output, recorded_mask = hook.pop()
    assert output.grad_fn is not None
    assert torch.equal(output, net.forward_bag(x, mask).scores)
    assert recorded_mask is mask
    assert hook.pop() is None


@pytest.mark.parametrize("as_keyword", [False, True])
def test_score_hook_finds_positional_and_keyword_masks(x, as_keyword):
    net, mask = ABMIL(4, 2), torch.ones(2, 5).bool()
    hook = ScoreHook(net, "score_tap")
    net(x, mask=mask) if as_keyword else net(x, mask)
    assert hook.pop().mask is mask
    net(x)
    assert hook.pop().mask is None


def test_score_hook_of_networks_with_keyword_only_or_no_mask(x):
    net, mask = Bags(), torch.ones(2, 5).bool()
    hook = ScoreHook(net, "score")
    net(x, mask=mask)
    assert hook.pop().mask is mask
    foreign = SoftmaxInside().train()
    hook = ScoreHook(foreign, "attend")
    foreign(torch.rand(2, 5, 6))
    assert hook.pop().mask is None


def test_score_hook_records_only_training_forward_passes(x):
    net = ABMIL(4, 2)
    hook = ScoreHook(net, "score_tap")
    net.eval()(x)
    assert hook.pop() is None
    with torch.no_grad():
        net.train()(x)
    assert hook.pop() is None
    net.score_tap(x)
    net.forward_bag(x)
    assert hook.pop() is None


def test_score_hook_clears_the_record_in_a_new_forward(x):
    net = ABMIL(4, 2)
    hook = ScoreHook(net, "score_tap")
    net(x)
    net.eval()(x)
    assert hook.pop() is None


def test_score_hook_after_a_forward_that_raises(x):
    net = ABMIL(4, 2)
    hook = ScoreHook(net, "score_tap")
    with pytest.raises(ValueError, match="`x` must have shape"):
        net(x[..., :3])
    net.score_tap(x)
    assert hook.pop() is None


def test_score_hook_keeps_the_last_call_of_a_forward(x):
    net = Bags()
    hook = ScoreHook(net, "score")
    out = net(x)
    assert hook.pop().output is out


def test_score_hook_ignores_recomputation_in_backward(x):
    net = Bags(reentrant=False)
    hook = ScoreHook(net, "score")
    out = net(x)
    assert hook.pop().output.grad_fn is not None
    out.sum().backward()
    assert hook.pop() is None


def test_score_hook_records_nothing_in_reentrant_checkpoints(x):
    net = Bags(reentrant=True)
    hook = ScoreHook(net, "score")
    net(x.requires_grad_()).sum().backward()
    assert hook.pop() is None


@pytest.mark.parametrize("called_before", [False, True])
def test_score_hook_of_a_compiled_network(x, called_before):
    torch.compiler.reset()
    net = ABMIL(4, 2)
    compiled = torch.compile(net, backend="eager")
    if called_before:
        compiled(x)
    hook = ScoreHook(compiled, "score_tap")
    compiled(x)
    recorded = hook.pop()
    assert torch.equal(recorded.output, net.forward_bag(x).scores)
    recorded.output.sum().backward()
    assert net.attend.score.weight.grad.any()
    compiled.eval()(x)
    assert hook.pop() is None
    hook.remove()
    compiled.train()(x)
    assert hook.pop() is None


def test_score_hook_remove_removes_all_hooks(x):
    net = ABMIL(4, 2)
    hook = ScoreHook(net, "score_tap")
    assert hook_count(net)
    net(x)
    hook.remove()
    assert hook_count(net) == 0
    assert hook.pop() is None
    net(x)
    assert hook.pop() is None


@pytest.mark.parametrize(
    ("path", "hint"),
    [("score_tab", "did you mean 'score_tap'"), ("score_tap", "did you mean 'net.score_tap'")],
)
def test_score_hook_lists_similar_paths_of_an_unknown_layer(path, hint):
    net = BagOutputWrapper(ABMIL(4, 2)) if path == "score_tap" else ABMIL(4, 2)
    with pytest.raises(ValueError, match=rf"`layer` must be the path of a submodule of \w+, got .*{hint}"):
        ScoreHook(net, path)
    assert hook_count(net) == 0


def test_score_hook_lists_few_paths_of_a_big_network():
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(300)))
    with pytest.raises(ValueError, match=r"got 'attention'.$") as error:
        ScoreHook(net, "attention")
    assert len(str(error.value)) < 120


def test_score_hook_names_an_unknown_mask_argument():
    with pytest.raises(ValueError, match=r"argument of ABMIL.forward \('x', 'mask'\), got 'padding'"):
        ScoreHook(ABMIL(4, 2), "score_tap", mask_argument="padding")


def test_score_hook_refuses_data_parallel():
    with pytest.raises(ValueError, match="`network` must not be a DataParallel"):
        ScoreHook(nn.DataParallel(ABMIL(4, 2)), "score_tap")


def test_score_hook_pop_call_returns_arguments_once(x):
    net, mask = ABMIL(4, 2), torch.ones(2, 5).bool()
    hook = ScoreHook(net, "score_tap")
    net(x, mask=mask)
    args, kwargs = hook.pop_call()
    assert args[0] is x
    assert kwargs["mask"] is mask
    assert hook.pop_call() == ((), {})
    net(x, mask)
    net.eval()(x)
    assert hook.pop_call() == ((), {})
    net.train()(x)
    hook.remove()
    assert hook.pop_call() == ((), {})
