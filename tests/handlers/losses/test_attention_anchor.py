"""Tests that AttentionAnchorHandler gives the weights of a hand-written loop, bit for bit."""

import copy

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionAnchorHandler
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks.nets import ABMIL, ASMIL
from tests.handlers.networks import mil_model
from tests.handlers.training import (
    CLASSES,
    F,
    bag_batches,
    gradients,
    hook_count,
    make_trainer,
    patch_batches,
    without_mask,
)
from tests.helpers import DEVICE, fill

BETA, MOMENTUM, LR = 0.7, 0.5, 0.1
LOSS = NSFKLLoss()


def abmil():
    return fill(ABMIL(F, CLASSES, hidden_size=8, num_heads=2, dropout=0.2))


def asmil():
    return fill(ASMIL(F, CLASSES, hidden_size=8, num_tokens=3, num_heads=2))


class SeesTheMask(nn.Module):
    """Foreign network with a keyword-only mask whose scores depend on all valid instances."""

    def __init__(self):
        super().__init__()
        self.attend, self.classify = nn.Linear(F, 2), nn.Linear(F, CLASSES)

    def forward(self, x, *, mask):
        x = x.masked_fill(~mask[..., None], 0.0)
        scores = self.attend(x - x.sum(1, keepdim=True) / mask.sum(1).view(-1, 1, 1))
        attention = scores.masked_fill(~mask[..., None], -torch.inf).softmax(1).mean(2, keepdim=True)
        return self.classify((attention * x).sum(1))


CASES = {
    "sees the mask": (lambda: fill(SeesTheMask()), bag_batches(), "attend"),
    "ABMIL": (abmil, bag_batches(), "score_tap"),
    "ASMIL": (asmil, bag_batches(), "score_tap"),
    "ASMIL prenorm": (
        lambda: fill(ASMIL(F, CLASSES, hidden_size=8, num_tokens=2, num_heads=2, block="prenorm")),
        bag_batches(),
        "score_tap",
    ),
    "MILModel att": (lambda: mil_model("att"), patch_batches(), "attention"),
    "MILModel att_trans": (lambda: mil_model("att_trans"), patch_batches(), "attention"),
}


def anchor(**options):
    return AttentionAnchorHandler(LOSS, **{"beta": BETA, "momentum": MOMENTUM} | options)


def call(net, layer, batch):
    """Return the logits and the output of a layer."""
    seen = []
    handle = net.get_submodule(layer).register_forward_hook(lambda *args: seen.append(args[-1]))
    logits = net(batch["image"], **{key: batch[key] for key in ("mask",) if key in batch})
    handle.remove()
    return logits, seen[-1]


class ByHand:
    """Training loop that the handler must reproduce."""

    def __init__(self, net, layer="score_tap"):
        self.net, self.layer, self.twin = net.train(), layer, copy.deepcopy(net).eval().requires_grad_(False)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def loss(self, batch, beta=BETA):
        logits, scores = call(self.net, self.layer, batch)
        with torch.no_grad():
            _, anchor_scores = call(self.twin, self.layer, batch)
        return cross_entropy(logits, batch["label"]) + beta * LOSS(scores, anchor_scores, batch.get("mask"))

    @torch.no_grad()
    def update(self, momentum=MOMENTUM):
        for a, p in zip(self.twin.parameters(), self.net.parameters(), strict=True):
            a.copy_(torch.lerp(a, p, 1 - momentum) if momentum else p)

    def step(self, batches, beta=BETA, momentum=MOMENTUM):
        self.optimizer.zero_grad()
        for batch in batches:
            (self.loss(batch, beta) / len(batches)).backward()
        self.optimizer.step()
        self.update(momentum)


def run(trainer):
    torch.manual_seed(1)
    trainer.run()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attention_anchor_equals_the_hand_written_loop(case):
    make, batches, layer = case
    handler, net = anchor(layer=layer), make()
    run(make_trainer(net, batches, handler, lr=LR))
    by_hand = ByHand(make(), layer)
    torch.manual_seed(1)
    for batch in batches:
        by_hand.step([batch])
    assert_close(gradients(net), gradients(by_hand.net), rtol=0, atol=0)
    assert_close(net.state_dict(), by_hand.net.state_dict(), rtol=0, atol=0)
    assert_close(handler.state_dict()["anchor"], dict(by_hand.twin.named_parameters()), rtol=0, atol=0)
    plain = make()
    run(make_trainer(plain, batches, lr=LR))
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), net.parameters(), strict=True))


def test_attention_anchor_gradient_flows_through_online_scores_only():
    net, batch = abmil().eval(), bag_batches(1)[0]
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.attend.score.weight.mul_(3)
    scores = call(net, "score_tap", batch)[1]
    scores.retain_grad()
    target = call(twin, "score_tap", batch)[1].requires_grad_()
    LOSS(scores, target, batch["mask"]).backward()
    alpha = scores.detach().masked_fill(~batch["mask"][..., None], -torch.inf).softmax(1)
    expected = (alpha - LOSS.log_target(target, batch["mask"]).exp()) * batch["mask"][..., None]
    assert_close(scores.grad, expected / (scores.shape[0] * scores.shape[2]), rtol=1e-5, atol=1e-7)
    assert all(p.grad is None for p in twin.parameters())


def test_attention_anchor_counts_accumulated_iterations_as_one_step():
    batches, handler, net = bag_batches(7), anchor(), abmil()
    trainer = make_trainer(net, batches, handler, lr=LR, accumulation_steps=3)
    run(trainer)
    assert handler.steps == 3
    by_hand = ByHand(abmil())
    torch.manual_seed(1)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        by_hand.optimizer.zero_grad()
        for batch in batches[start:stop]:
            (by_hand.loss(batch) / 3).backward()
        by_hand.optimizer.step()
        by_hand.update()
    assert_close(net.state_dict(), by_hand.net.state_dict(), rtol=0, atol=0)


def test_attention_anchor_without_mask_and_with_keyword_mask():
    for batches in (without_mask(patch_like(bag_batches())), bag_batches()):
        net = asmil()
        run(make_trainer(net, batches, anchor(), lr=LR))
        by_hand = ByHand(asmil())
        torch.manual_seed(1)
        for batch in batches:
            by_hand.step([batch])
        assert_close(net.state_dict(), by_hand.net.state_dict(), rtol=0, atol=0)


def patch_like(batches):
    return [batch | {"image": batch["image"].nan_to_num(0.5)} for batch in batches]


def test_attention_anchor_schedules_of_start_interval_and_beta():
    batches, net, factors = bag_batches(7), abmil(), []
    handler = anchor(start_step=2, every=2, beta_warmup_steps=5)
    trainer = make_trainer(net, batches, handler, lr=LR)
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: factors.append(handler.effective_weight() if handler.steps >= 2 else 0.0)
    )
    run(trainer)
    by_hand = ByHand(abmil())
    torch.manual_seed(1)
    betas = [0.0, 0.0, 0.6 * BETA, 0.8 * BETA, BETA, BETA, BETA]
    moves = [1.0, 0.0, 1.0, MOMENTUM, 1.0, MOMENTUM, 1.0]  # after two steps it is the network itself
    for batch, beta, momentum in zip(batches, betas, moves, strict=True):
        by_hand.step([batch], beta, momentum)
    assert_close(factors, betas)
    assert_close(net.state_dict(), by_hand.net.state_dict(), rtol=1e-5, atol=1e-7)


def test_attention_anchor_with_beta_zero_adds_nothing():
    def train(*handlers):
        net, hooks = asmil(), []
        trainer = make_trainer(net, bag_batches(), *handlers, max_epochs=3)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: hooks.append(hook_count(net)))
        run(trainer)
        return net.state_dict(), trainer.state.metrics, trainer.state.output, hooks

    with_handler, plain = train(anchor(beta=0.0)), train()
    assert_close(with_handler, plain, rtol=0, atol=0, equal_nan=True)
    assert set(plain[3]) == {0}


def test_attention_anchor_with_momentum_one_never_changes():
    net = asmil()
    handler = AttentionAnchorHandler(NSFKLLoss(temperature=0.5, over_instances="mean"), beta=1.0, momentum=1.0)
    run(make_trainer(net, bag_batches(), handler))
    start = asmil()
    for name, tensor in handler.state_dict()["anchor"].items():
        assert torch.equal(tensor, start.state_dict()[name])
    assert handler.steps == 4
    assert not torch.equal(net.classify.weight, start.classify.weight)


def scaled(device, fused):
    """Train with a gradient scaler whose first step overflows; on a CPU MONAI's ``amp`` means the scaler alone."""
    net, handler, batches = abmil().to(device), anchor(), bag_batches(4)
    batches[0]["image"] *= 1e3
    trainer = make_trainer(net, batches, handler)
    trainer.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=fused)
    trainer.amp, trainer.state.device = True, torch.device(device)
    scaler = torch.amp.GradScaler(device, init_scale=1e38, backoff_factor=1e-36)
    trainer.add_event_handler(Events.STARTED, lambda: setattr(trainer, "scaler", scaler))
    seen = []

    def look():
        state = handler.state_dict()
        seen.append((state["steps"], state["anchor"]["classify.weight"].clone(), net.classify.weight.detach().clone()))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    run(trainer)
    start = abmil().classify.weight.detach().to(device)
    assert [steps for steps, _, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[0][2], start)
    assert torch.equal(seen[0][1], start)
    assert_close(seen[1][1], torch.lerp(start, seen[1][2], 1 - MOMENTUM), rtol=0, atol=0)
    assert not torch.equal(seen[1][1], start)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available.*")
@pytest.mark.parametrize("fused", [False, True])
def test_attention_anchor_ignores_steps_skipped_by_the_scaler(fused):
    scaled("cpu", fused)


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [False, True])
def test_attention_anchor_ignores_steps_skipped_by_the_scaler_on_a_gpu(fused):
    scaled(DEVICE, fused)


def test_attention_anchor_of_a_compiled_network():
    torch.compiler.reset()
    options = {"compile": True, "compile_kwargs": {"backend": "eager"}}
    nets = [fill(ABMIL(F, CLASSES)) for _ in range(2)]
    for net, extra in zip(nets, (options, {}), strict=True):
        run(make_trainer(net, bag_batches(), anchor(), **extra))
        assert hook_count(net) == 0
    assert_close(nets[0].state_dict(), nets[1].state_dict())
