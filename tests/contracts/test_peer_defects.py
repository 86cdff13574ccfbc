"""Tests against defects of other MIL packages, by their numbers in the survey that found them.

Defects that a law of all networks excludes are listed in ``LAWS`` and run once, with the laws. Number 13, a heat map
that differs from the evaluation, is not about networks, losses or training; 3 and 12 are in test_peer_defects_docs.py
and tests/bundles.
"""

import inspect
from functools import partial

import pytest
import torch
from monai.data import DataLoader
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate
from monai_mil_ext.handlers import AttentionAnchorHandler, AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.networks import nets
from monai_mil_ext.networks.blocks import TopInstanceMasking
from tests.contracts import laws, runtime_laws
from tests.contracts.net_cases import CASES, MASK, C, F, X, every_net
from tests.handlers.training import bag_batches, make_trainer
from tests.helpers import fill

LAWS = {
    "01 asking for attention changes the logits": [laws.forward_agrees_with_forward_bag],
    "02 bags of a batch depend on one another": [laws.bags_are_independent],
    "04 attention dropout is active in evaluation": [laws.eval_is_deterministic],
    "05 the mask is inverted if attention is returned": [
        laws.padding_changes_nothing,
        laws.forward_agrees_with_forward_bag,
    ],
    "07 padding leaks into a bag": [laws.padding_changes_nothing, laws.bags_are_independent],
    "16 only one network can be exported": [
        laws.export_serves_any_bag_size,
        laws.torchscript_agrees,
        runtime_laws.onnxruntime_agrees,
    ],
}
FIVE = torch.linspace(-3, 3, 5 * 6 * F, dtype=torch.float64).sin().view(5, 6, F)
FIVE_MASK = torch.arange(6) < torch.tensor([[4], [6], [1], [5], [2]])
WITH_CLASS_TOKEN = ("QGMIL-cls", "SequenceTransMIL", "SmTP", "TransMIL")
FIXED = {name: make for name, make in CASES.items() if not name.startswith("DTFDMIL")}  # which splits bags by chance
WITH_DROPOUT = {  # cases whose class has the argument
    name: make
    for name, make in CASES.items()
    if isinstance(make, partial) and "dropout" in inspect.signature(make.func).parameters
}
HANDLERS = {
    "none": lambda: [],
    "prior": lambda: [AttentionPriorHandler(NormalGuidanceLoss())],
    "anchor": lambda: [AttentionAnchorHandler(NSFKLLoss(), beta=0.5)],
    "both": lambda: [AttentionPriorHandler(NormalGuidanceLoss()), AttentionAnchorHandler(NSFKLLoss(), beta=0.5)],
}


def without_chance(make):
    """Return the network with known weights and without randomness, so that training mode makes no difference."""
    net = fill(make()).double()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, TopInstanceMasking):
            module.rate = 0.0
        if isinstance(module, nets.ASMIL):
            module.token_drop, module.n_drop = 0.0, None
    return net


@every_net
def test_bag_net_depends_on_the_mask_defect_02(make):
    net = laws.tested(make)
    masked, whole, padded = net.forward_bag(FIVE, FIVE_MASK), net.forward_bag(FIVE), ~FIVE_MASK.all(1)
    # at least two of the padded bags, since a maximum may be among the valid instances
    assert (masked.attention != whole.attention).flatten(1).any(1)[padded].sum() >= 2
    if list(net.parameters()):  # a network without weights gives all bags the same logits
        assert (masked.logits != whole.logits).any(1)[padded].sum() >= 2


@pytest.mark.parametrize("defect", LAWS)
def test_laws_that_exclude_a_defect_are_tested(defect):
    assert set(LAWS[defect]) <= {*laws.CHEAP, *laws.EXPENSIVE, *runtime_laws.SLOW}


@pytest.mark.parametrize("handlers", HANDLERS.values(), ids=HANDLERS)
def test_score_tap_in_validation_has_no_dropout_or_gradient_defect_06(handlers):
    net, seen, validating = fill(nets.ABMIL(F, 2, hidden_size=4, dropout=0.5)), [], []

    def note(module, args, scores):
        modes = {part.training for part in net.modules()}
        seen.append((bool(validating), modes, torch.is_grad_enabled(), scores.requires_grad))

    net.score_tap.register_forward_hook(note)
    batches, ask = bag_batches(count=2), PrepareBatchExtraInput({"mask": "mask"})
    evaluator = SupervisedEvaluator("cpu", batches, nets.BagOutputWrapper(net), prepare_batch=ask)
    evaluator.add_event_handler("STARTED", lambda: validating.append(True))
    evaluator.add_event_handler("COMPLETED", validating.clear)
    each_step = ValidationHandler(1, evaluator, epoch_level=False)
    make_trainer(net, batches, *handlers(), each_step, max_epochs=2).run()
    assert [row for row in seen if row[0]] == [(True, {False}, False, False)] * 8
    assert [row for row in seen if not row[0]] == [(False, {True}, True, True)] * 4


@every_net
def test_bag_output_attention_is_after_the_softmax_defect_08(make):
    attention = laws.tested(make).forward_bag(FIVE, FIVE_MASK).attention
    assert not attention[~FIVE_MASK].any()
    assert (attention >= 0).all()
    assert (attention.sum(1) <= 1 + 1e-10).all()  # the weight of a class token on itself is left out
    if laws.claimed(laws.attention_is_a_distribution, make):
        laws.attention_is_a_distribution(make, FIVE, FIVE_MASK)


@pytest.mark.parametrize("make", FIXED.values(), ids=FIXED)
def test_bag_net_gives_equal_logits_with_and_without_padding_defect_09(make):
    net, logits = without_chance(make), []
    bags = [{"image": bag[real], "label": i % C} for i, (bag, real) in enumerate(zip(FIVE, FIVE_MASK, strict=True))]
    net.register_forward_hook(lambda *args: logits.append(args[-1].detach()))
    shared = {"network": net, "prepare_batch": PrepareBatchExtraInput({"mask": "mask"}), "device": "cpu"}
    padded, alone = (DataLoader(bags, batch_size=size, collate_fn=BagCollate("image")) for size in (5, 1))
    weights = list(net.parameters())
    if weights:
        loss = {"loss_function": nn.CrossEntropyLoss(), "optimizer": torch.optim.SGD(weights, lr=0.0)}
        SupervisedTrainer(max_epochs=1, train_data_loader=padded, **shared, **loss).run()
    else:
        SupervisedEvaluator(val_data_loader=padded, **shared).run()
    SupervisedEvaluator(val_data_loader=alone, **shared).run()
    assert_close(logits[0], torch.cat(logits[1:]), **laws.TIGHT)


@pytest.mark.parametrize("name", WITH_CLASS_TOKEN)
def test_bag_net_class_token_attends_to_valid_instances_only_defect_10(name):
    net, x = laws.tested(CASES[name]), FIVE.where(FIVE_MASK[..., None], torch.nan).requires_grad_()
    for bag, logits in enumerate(net(x, FIVE_MASK)):
        (gradient,) = torch.autograd.grad(logits.square().sum(), x, retain_graph=True)
        assert ((gradient[bag] != 0).any(1) == FIVE_MASK[bag]).all()


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("make", WITH_DROPOUT.values(), ids=WITH_DROPOUT)
def test_bag_net_keeps_its_dropout_rate_defect_11(make, rate):
    net = make(dropout=rate)
    assert {module.p for module in net.modules() if isinstance(module, nn.modules.dropout._DropoutNd)} == {rate}
    without_others = without_chance(partial(make, dropout=rate))
    for module in without_others.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
    training, serving = without_others.train()(X, MASK), without_others.eval()(X, MASK)
    assert torch.equal(training, serving) is (rate == 0)


def test_bag_net_cases_with_dropout_are_complete_defect_11():
    public = {name: getattr(nets, name) for name in nets.__all__ if inspect.isclass(getattr(nets, name))}
    named = {n for n, net in public.items() if issubclass(net, nn.Module) and "dropout" in vars_of(net)}
    assert named == {case.split("-")[0] for case in WITH_DROPOUT}


def vars_of(net):
    return inspect.signature(net).parameters


@every_net
@pytest.mark.parametrize("n", range(1, 11))
def test_bag_net_accepts_small_bags_defect_14(make, n):
    net, x = make().double().train(), torch.randn(2, n, F, dtype=torch.float64, requires_grad=True)
    for mask in (None, torch.arange(n) < torch.tensor([[n], [1]])):
        out = net.forward_bag(x, mask)
        (gradient,) = torch.autograd.grad(out.logits.square().sum(), x)
        assert out.logits.shape == (2, C)
        assert all(part.isfinite().all() for part in (out.logits, out.attention, gradient))


@every_net
def test_bag_output_wrapper_has_the_same_keys_in_every_mode_defect_15(make):
    net, keys = nets.BagOutputWrapper(make().double()), set()
    for mode in (True, False):
        for mask in (None, MASK):
            out = net.train(mode)(X, mask)
            keys.add(tuple(out))
            assert out["attention"].shape[:2] == MASK.shape
    (names,) = keys
    assert names[:2] == ("logits", "attention")
    assert set(names) <= set(nets.BagOutput._fields)
    assert ("scores" in names) is make().gives_scores
