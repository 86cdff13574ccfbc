"""Tests that AttentionPriorHandler gives the gradients and weights of the hand-written sum, bit for bit."""

import contextlib
import copy
import warnings

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import (
    ValidationHandler,
)
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import monai_mil_ext  # noqa: F401  what a bundle imports
from monai_mil_ext.handlers import AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.networks import mil_model
from tests.handlers.training import (
    CLASSES,
    F,
    SoftmaxInside,
    bag_batches,
    gradients,
    hook_count,
    make_trainer,
    patch_batches,
    without_mask,
)
from tests.helpers import DEVICE, fill

WEIGHT = 0.7
GUIDANCE = NormalGuidanceLoss()


def abmil(**options):
    return fill(ABMIL(F, CLASSES, hidden_size=8, num_heads=2, dropout=0.2, **options))


def mil_model_by_hand(net, x):
    h = net(x, no_head=True)
    if net.transformer is not None:
        h = net.transformer(h.transpose(0, 1)).transpose(0, 1)
    scores = net.attention(h)
    return net.myfc((h * scores.softmax(1)).sum(1)), masked_softmax(scores, None), None


def abmil_by_hand(net, x, mask):
    logits, _, scores, _ = net.forward_bag(x, mask)
    return logits, masked_softmax(scores, mask), mask


def softmax_inside_by_hand(net, x, _mask):
    attention = net.attend(x).unsqueeze(-1)
    return net.classify((attention * x).sum(1)), attention, None


FINITE = [batch | {"image": batch["image"].nan_to_num(0.5)} for batch in bag_batches()]
CASES = {
    "ABMIL": (abmil, bag_batches(), abmil_by_hand, {}),
    "MILModel att": (lambda: mil_model("att"), patch_batches(), mil_model_by_hand, {"layer": "attention"}),
    "MILModel att_trans": (lambda: mil_model("att_trans"), patch_batches(), mil_model_by_hand, {"layer": "attention"}),
    "softmax inside": (SoftmaxInside, FINITE, softmax_inside_by_hand, {"layer": "attend", "kind": "attention"}),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def loss_by_hand(net, by_hand, batch, autocast=contextlib.nullcontext):
    inputs = [batch[key] for key in ("image", "mask") if key in batch]
    with autocast():
        logits, attention, mask = by_hand(net, *inputs)
        loss = cross_entropy(logits, batch["label"])
    return loss + WEIGHT * GUIDANCE(attention, mask)


@every_case
def test_attention_prior_gradients_are_those_of_the_sum(case):
    make, batches, by_hand, options = case
    net, same = make(), make()
    given = batches if make is abmil else without_mask(batches)
    trainer = make_trainer(net, given[:1], AttentionPriorHandler(GUIDANCE, weight=WEIGHT, **options))
    torch.manual_seed(1)
    trainer.run()
    torch.manual_seed(1)
    loss_by_hand(same.train(), by_hand, batches[0]).backward()
    assert_close(gradients(net), gradients(same), rtol=0, atol=0)
    plain = make()
    torch.manual_seed(1)
    make_trainer(plain, given[:1]).run()
    assert any(not torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), plain.parameters(), strict=True))


def test_attention_prior_with_gradient_accumulation():
    batches = bag_batches(7)
    net, same = abmil(), abmil().train()
    trainer = make_trainer(net, batches, AttentionPriorHandler(GUIDANCE, weight=WEIGHT), accumulation_steps=3)
    torch.manual_seed(1)
    trainer.run()
    optimizer = torch.optim.SGD(same.parameters(), lr=0.1)
    torch.manual_seed(1)
    for i, batch in enumerate(batches):
        if i % 3 == 0:
            optimizer.zero_grad()
        (loss_by_hand(same, abmil_by_hand, batch) / 3).backward()
        if i % 3 == 2 or i == 6:
            optimizer.step()
    assert_close(net.state_dict(), same.state_dict(), rtol=0, atol=0)


class Checkpointed(nn.Module):
    """Network that recomputes attention in the backward pass."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, mask=None):
        return checkpoint(self.net, x, mask, use_reentrant=False)


def test_attention_prior_with_activation_checkpointing():
    net, same = abmil(), abmil().train()
    prior = AttentionPriorHandler(GUIDANCE, layer="net.score_tap", weight=WEIGHT)
    torch.manual_seed(1)
    make_trainer(Checkpointed(net), bag_batches(1), prior).run()
    torch.manual_seed(1)
    loss_by_hand(same, abmil_by_hand, bag_batches(1)[0]).backward()
    assert_close(gradients(net), gradients(same), rtol=0, atol=0)


def test_attention_prior_term_is_float32_under_autocast():
    seen = []

    def guidance(attention, mask):
        seen.append((attention.dtype, torch.is_autocast_enabled("cpu")))
        return GUIDANCE(attention, mask)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16)

    net, same = abmil(), abmil().train()
    trainer = make_trainer(net, bag_batches(1), AttentionPriorHandler(guidance, weight=WEIGHT))
    torch.manual_seed(1)
    with autocast():
        trainer.run()
    torch.manual_seed(1)
    loss = loss_by_hand(same, abmil_by_hand, bag_batches(1)[0], autocast)
    with autocast():  # as the trainer's backward pass
        loss.backward()
    assert seen == [(torch.float32, False)]
    assert_close(gradients(net), gradients(same), rtol=0, atol=0)
    plain = abmil()
    torch.manual_seed(1)
    make_trainer(plain, bag_batches(1), AttentionPriorHandler(GUIDANCE, weight=WEIGHT)).run()
    assert all(not torch.equal(g, gradients(plain)[name]) for name, g in gradients(net).items())  # bfloat16 was used


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="MONAI's amp computes in half precision with CUDA only")
def test_attention_prior_with_a_gradient_scaler():
    batches = bag_batches(8)  # the scaler skips the first steps, until nothing overflows
    net, same = abmil().cuda(), abmil().cuda().train()
    prior = AttentionPriorHandler(GUIDANCE, weight=WEIGHT)
    trainer = make_trainer(net, batches, prior, amp=True)
    trainer.state.device = torch.device("cuda")
    torch.manual_seed(1)
    trainer.run()
    optimizer, scaler = torch.optim.SGD(same.parameters(), lr=0.1), torch.amp.GradScaler("cuda")
    torch.manual_seed(1)
    for batch in batches:
        optimizer.zero_grad()
        on_device = {key: value.cuda() for key, value in batch.items()}
        loss = loss_by_hand(same, abmil_by_hand, on_device, lambda: torch.autocast("cuda"))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert_close(net.state_dict(), same.state_dict())
    assert not torch.equal(net.classify.weight.cpu(), abmil().classify.weight)


def test_attention_prior_terms_add_up():
    def second(attention, _mask):
        return attention.square().sum()

    net, same = abmil(), abmil().train()
    priors = AttentionPriorHandler(GUIDANCE, weight=WEIGHT), AttentionPriorHandler(second, weight=0.2, name="second")
    trainer = make_trainer(net, bag_batches(1), *priors)
    torch.manual_seed(1)
    trainer.run()
    torch.manual_seed(1)
    batch = bag_batches(1)[0]
    logits, attention, mask = abmil_by_hand(same, batch["image"], batch["mask"])
    terms = GUIDANCE(attention, mask), second(attention, mask)
    (cross_entropy(logits, batch["label"]) + WEIGHT * terms[0] + 0.2 * terms[1]).backward()
    assert_close(gradients(net), gradients(same))
    metrics = trainer.state.metrics
    assert_close([metrics["attention_prior"], metrics["second"]], [t.item() for t in terms])


def test_attention_prior_with_weight_zero_changes_nothing():
    calls, hooks = [], []
    prior = AttentionPriorHandler(lambda *inputs: calls.append(inputs), weight=0)
    net, same = abmil(), abmil()
    trainer = make_trainer(net, bag_batches(), prior, max_epochs=3)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: hooks.append(hook_count(net)))
    plain = make_trainer(same, bag_batches(), max_epochs=3)
    for run in (trainer, plain):
        torch.manual_seed(1)
        run.run()
    assert_close(net.state_dict(), same.state_dict(), rtol=0, atol=0)
    assert_close(trainer.state.output, plain.state.output, rtol=0, atol=0, equal_nan=True)
    assert trainer.state.metrics == plain.state.metrics
    assert calls == []
    assert set(hooks) == {0}


def test_attention_prior_of_a_compiled_network():
    torch.compiler.reset()
    net = fill(ABMIL(F, CLASSES))
    same = copy.deepcopy(net)
    options = {"compile": True, "compile_kwargs": {"backend": "eager"}}
    for network, extra in ((net, options), (same, {})):
        trainer = make_trainer(network, bag_batches(), AttentionPriorHandler(GUIDANCE, weight=WEIGHT), **extra)
        assert isinstance(trainer, SupervisedTrainer)
        trainer.run()
    assert_close(net.state_dict(), same.state_dict())
    assert hook_count(net) == 0


@pytest.fixture
def net():
    return fill(ABMIL(F, CLASSES))


def prior(**options):
    return AttentionPriorHandler(NormalGuidanceLoss(), **options)


def test_attention_prior_ignores_validation_of_the_same_network(net):
    calls = []

    def guidance(attention, mask):
        calls.append(len(attention))
        return NormalGuidanceLoss()(attention, mask)

    def train(*extra):
        network = fill(ABMIL(F, CLASSES))
        handlers = [make(network) for make in extra]
        make_trainer(network, bag_batches(), *handlers, AttentionPriorHandler(guidance), max_epochs=2).run()
        return network.state_dict()

    def validation(network):
        trainer = make_trainer(network, bag_batches(2, sizes=(3, 2)))
        evaluator = SupervisedEvaluator("cpu", trainer.data_loader, network, prepare_batch=trainer.prepare_batch)
        return ValidationHandler(1, evaluator, epoch_level=False)

    with_validation = train(validation)
    assert calls == [3] * 8
    assert_close(with_validation, train(), rtol=0, atol=0)


CONFIG = """
imports: ["$import monai_mil_ext"]
weight: 0.25
handler:
  _target_: AttentionPriorHandler
  loss: {_target_: NormalGuidanceLoss, min_sd: 1.0}
  layer: attention
  weight: "@weight"
"""


def test_attention_prior_in_a_config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG)
    parser = ConfigParser()
    parser.read_config(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        handler = parser.get_parsed_content("handler")
    assert isinstance(handler, AttentionPriorHandler)
    assert (handler.layer, handler.weight, handler.loss.min_sd) == ("attention", 0.25, 1.0)


def test_attention_prior_names_an_invalid_kind():
    with pytest.raises(ValueError, match="`kind` must be one of 'scores', 'attention', got 'logits'"):
        prior(kind="logits")


def test_attention_prior_kind_attention_applies_no_softmax():
    batch = [{"image": torch.randn(2, 5, F), "label": torch.tensor([0, 1])}]
    network = SoftmaxInside()
    expected = NormalGuidanceLoss()(network.attend(batch[0]["image"]).unsqueeze(-1)).item()
    trainer = make_trainer(network, batch, prior(layer="attend", kind="attention"))
    trainer.run()
    assert_close(trainer.state.metrics["attention_prior"], expected)
