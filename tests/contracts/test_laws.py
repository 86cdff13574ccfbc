"""Tests that the laws can fail: for every law, a broken network that it catches."""

from functools import partial

import pytest
import torch
from torch import nn

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets import ABMIL
from tests.contracts import laws, runtime_laws
from tests.contracts.net_cases import MASK, C, F, X


class IgnoresMask(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x, None)


class MultipliesByMask(ABMIL):
    """Network that multiplies by the mask instead of filling."""

    def forward_bag(self, x, mask=None):
        return super().forward_bag(x if mask is None else x * mask[..., None], None)


class ZeroesPaddingTooLate(ABMIL):
    """Network with correct values and wrong gradients, since NaN meets the first weight before it is zeroed."""

    def forward_bag(self, x, mask=None):
        h = zero_out_padding(self.embed(x), mask)
        scores = self.score_tap(self.attend(h))
        attention = masked_softmax(scores, mask)
        embedding = (attention * h).sum(1)
        return (
            super()
            .forward_bag(x[:, :0])
            ._replace(logits=self.classify(embedding), attention=attention, scores=scores, embedding=embedding)
        )


class LeaksOtherBags(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(zero_out_padding(x, mask) + 1e-3 * zero_out_padding(x, mask).mean((0, 1)), mask)


class UsesPositions(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x + torch.arange(x.shape[1], dtype=x.dtype)[:, None], mask)


class DeclaresItUsesPositions(UsesPositions):
    permutation_invariant = False


class DeclaresTooLittle(ABMIL):
    """Network that keeps a law although it declares the contrary."""

    permutation_invariant = False


class DropsInEvaluation(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(nn.functional.dropout(x), mask)


class ModifiesInput(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x.mul_(2), mask)


class DividesByCount(ABMIL):
    def forward_bag(self, x, mask=None):
        out = super().forward_bag(x, mask)
        count = torch.full_like(out.logits, x.shape[1]) if mask is None else mask.sum(1, keepdim=True)
        return out._replace(logits=out.logits * count / count)


class DoesNotSaveAWeight(ABMIL):
    """Network with a number that ``state_dict`` does not save."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = torch.rand(())

    def forward_bag(self, x, mask=None):
        out = super().forward_bag(x, mask)
        return out._replace(logits=out.logits * self.scale)


class RefersToItself(ABMIL):
    """Network with a reference to itself that ``deepcopy`` does not copy."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = self.classify.weight.sum

    def forward_bag(self, x, mask=None):
        out = super().forward_bag(x, mask)
        return out._replace(logits=out.logits * self.scale())


class HasUnusedWeight(ABMIL):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.idle = nn.Linear(2, 2)


class ForwardDiffers(ABMIL):
    def forward(self, x, mask=None):
        return super().forward(x, mask) * (1 + 1e-15)


class ChangesOutput(ABMIL):
    """Network that changes one part of the output of ABMIL."""

    def __init__(self, *args, change, **kwargs):
        super().__init__(*args, **kwargs)
        self.change = change

    def forward_bag(self, x, mask=None):
        out = super().forward_bag(x, mask)
        return out._replace(**self.change(out))


class RoundsAttention(ABMIL):
    """Network that computes the softmax in the dtype of autocast, as MONAI's MILModel does."""

    def forward_bag(self, x, mask=None):
        out = super().forward_bag(x, mask)
        return out._replace(attention=out.scores.masked_fill(~mask[..., None], -1e9).softmax(1))


class NeverInBfloat16(ABMIL):
    def forward_bag(self, x, mask=None):
        with torch.autocast("cpu", enabled=False):
            return super().forward_bag(x, mask)


class BranchesOnBagSize(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x if x.shape[1] > 3 else x * 2, mask)


class BranchesOnValues(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x * 2 if x.sum().item() > 0 else x, mask)


class InfersTheBagSize(ABMIL):
    """Network that has no bag size for zero bags."""

    def forward_bag(self, x, mask=None):
        return super().forward_bag(x.view(len(x), -1, self.in_features), mask)


class SquaresFeatures(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x.square() * x.square().mean(-1, keepdim=True), mask)


class DiffersUnderVmap(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x * 1.001 if torch._C._functorch.is_batchedtensor(x) else x, mask)


class DiffersInOnnxExport(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x * 1.001 if torch.onnx.is_in_onnx_export() else x, mask)


class DiffersWhenCompiled(ABMIL):
    def forward_bag(self, x, mask=None):
        return super().forward_bag(x * 1.001 if torch.compiler.is_compiling() else x, mask)


class AcceptsAnyInput(ABMIL):
    def check_input(self, x, mask, in_features):
        pass


def changed(change):
    return partial(ChangesOutput, change=change)


BROKEN = [
    (laws.output_has_documented_shapes, changed(lambda o: {"attention": o.attention[..., 0]})),
    (laws.output_has_documented_shapes, changed(lambda o: {"scores": None})),
    (laws.input_is_not_modified, ModifiesInput),
    (laws.padding_changes_nothing, IgnoresMask),
    (laws.padding_changes_nothing, MultipliesByMask),
    (laws.padding_changes_nothing, partial(ZeroesPaddingTooLate, hidden_size=4)),
    (laws.padding_changes_nothing, changed(lambda o: {"attention": o.attention + 1e-9})),
    (laws.bags_are_independent, LeaksOtherBags),
    (laws.bags_are_independent, IgnoresMask),
    (laws.order_changes_nothing, UsesPositions),
    (laws.attention_is_a_distribution, changed(lambda o: {"attention": o.scores.sigmoid()})),
    (laws.score_tap_passes_scores, changed(lambda o: {"scores": o.attention})),
    (laws.forward_agrees_with_forward_bag, ForwardDiffers),
    (laws.eval_is_deterministic, DropsInEvaluation),
    (laws.empty_bag_is_finite, DividesByCount),
    (laws.no_bags_give_no_logits, InfersTheBagSize),
    (laws.every_parameter_has_a_gradient, HasUnusedWeight),
    (laws.state_dict_restores_network, DoesNotSaveAWeight),
    (laws.deepcopy_is_independent, RefersToItself),
    (laws.export_serves_any_bag_size, BranchesOnBagSize),
    (laws.torchscript_agrees, changed(dict)),
    (laws.compiles_without_graph_break, BranchesOnValues),
    (laws.autocast_is_close, RoundsAttention),
    (laws.autocast_is_close, NeverInBfloat16),
    (laws.large_features_stay_finite, SquaresFeatures),
    (laws.values_are_not_needed, BranchesOnValues),
    (laws.vmap_agrees, DiffersUnderVmap),
    (laws.gradients_are_exact_in_float64, changed(lambda o: {"embedding": o.embedding.float()})),
    (laws.gradients_are_exact_in_float64, changed(lambda o: {"logits": o.logits + o.logits.detach()})),
    (laws.bad_input_is_named, AcceptsAnyInput),
    (laws.exceptions_are_needed, DeclaresTooLittle),
]
BROKEN_SLOW = [
    (runtime_laws.onnxruntime_agrees, DiffersInOnnxExport),
    (runtime_laws.inductor_agrees, DiffersWhenCompiled),
]


@pytest.mark.parametrize(("law", "net"), BROKEN, ids=lambda value: getattr(value, "__name__", "Changed"))
def test_law_catches_broken_net(law, net):
    make = partial(net, F, C, attention_size=5)
    # exporters and compilers raise their own exceptions
    tools = (
        laws.export_serves_any_bag_size,
        laws.torchscript_agrees,
        laws.compiles_without_graph_break,
        laws.bad_input_is_named,
        laws.no_bags_give_no_logits,
        laws.values_are_not_needed,
    )
    error = Exception if law in tools else (AssertionError, pytest.fail.Exception)
    with pytest.raises(error):
        law(make, X, MASK)


@pytest.mark.slow(buys="the laws on onnxruntime and machine code find broken networks")
@pytest.mark.parametrize(("law", "net"), BROKEN_SLOW, ids=lambda value: value.__name__)
def test_slow_law_catches_broken_net(law, net):
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        law(partial(net, F, C, attention_size=5), X, MASK)


def test_every_law_has_a_broken_net():
    assert {law for law, _ in BROKEN} == {*laws.CHEAP, *laws.EXPENSIVE}
    assert [law for law, _ in BROKEN_SLOW] == runtime_laws.SLOW


def test_inductor_agrees_names_missing_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(AssertionError, match=r"no-such-compiler is not there \(Debian's package is g\+\+\)"):
        runtime_laws.inductor_agrees(partial(ABMIL, F, C), X, MASK)


def test_exceptions_are_needed_accepts_true_exception():
    laws.exceptions_are_needed(partial(DeclaresItUsesPositions, F, C), X, MASK)
