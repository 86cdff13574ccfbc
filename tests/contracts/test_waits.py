"""No step of a training waits for a device: neither networks, nor losses, nor handlers read values back."""

from itertools import pairwise

import pytest
import torch
from ignite.engine import Events

from monai_mil_ext.handlers import (
    AttentionAnchorHandler,
    AttentionPriorHandler,
    BranchLossHandler,
    HiddenInstances,
    InstanceLossHandler,
    MaskedHardInstanceHandler,
    ProximalL1Handler,
)
from monai_mil_ext.losses import (
    AttentionEntropyLoss,
    BranchDiversityLoss,
    BranchLoss,
    KernelGuidanceLoss,
    NormalGuidanceLoss,
    NSFKLLoss,
)
from monai_mil_ext.networks.nets import ABMIL, ACMIL, CLAM
from tests.contracts.label_loss_cases import K, every_loss
from tests.contracts.mining_cases import every_mined_net
from tests.contracts.net_cases import MASK, C, F, X, every_net
from tests.contracts.waits import WaitCounter, count_as_device
from tests.handlers.training import bag_batches, make_trainer, without_mask
from tests.helpers import fill


def waits_of(run, monkeypatch):
    """Return where a function waits; it runs once before, since some networks look up or build things once."""
    run()
    count_as_device(monkeypatch)
    with WaitCounter() as counter:
        run()
    return dict(counter.found)


@every_net
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_networks_do_not_wait(make, masked, monkeypatch):
    net = make().double().train()
    mask = MASK if masked else None
    net(X, mask)

    def step():
        output = net(X, mask)
        if output.requires_grad:
            output.sum().backward()

    assert waits_of(step, monkeypatch) == {}


@every_loss
def test_losses_of_labels_do_not_wait(loss, options, labels, monkeypatch):
    logits, label = torch.randn(3, K, dtype=torch.float64, requires_grad=True), labels(3)
    criterion = loss(**options)
    assert waits_of(lambda: criterion(logits, label).backward(), monkeypatch) == {}


@pytest.mark.parametrize("loss", [NormalGuidanceLoss, KernelGuidanceLoss, AttentionEntropyLoss, BranchDiversityLoss])
def test_losses_of_attention_do_not_wait(loss, monkeypatch):
    a = torch.rand(2, 5, 3, requires_grad=True)
    assert waits_of(lambda: loss()(a / a.sum(1, keepdim=True), MASK).backward(), monkeypatch) == {}


def test_the_loss_of_scores_does_not_wait(monkeypatch):
    scores = torch.rand(2, 5, 1, requires_grad=True)
    assert waits_of(lambda: NSFKLLoss()(scores, scores.detach() + 1, MASK).backward(), monkeypatch) == {}


@pytest.mark.parametrize("counts", [[4, 4], [1, 3], [0, 2]], ids=["whole", "missing", "empty"])
def test_the_loss_of_branches_does_not_wait(counts, monkeypatch):
    logits, label = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True), torch.tensor([2, 0])
    given = logits.masked_fill((torch.arange(4) >= torch.tensor(counts)[:, None]).unsqueeze(2), -torch.inf)
    loss = BranchLoss(torch.nn.CrossEntropyLoss())
    expected = loss(given, label)
    assert waits_of(lambda: loss(given, label).backward(retain_graph=True), monkeypatch) == {}
    torch.testing.assert_close(loss(given, label), expected)


class StepCounter:
    """Handler that counts where the steps of a trainer wait, after the first one."""

    def attach(self, engine):
        self.counter = WaitCounter()
        engine.add_event_handler(Events.ITERATION_STARTED(event_filter=lambda _, number: number > 1), self.enter)
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=lambda _, number: number > 1), self.leave)

    def enter(self):
        self.counter.__enter__()

    def leave(self):
        self.counter.__exit__(None, None, None)


HANDLERS = {
    "normal guidance": lambda: AttentionPriorHandler(NormalGuidanceLoss()),
    "kernel guidance": lambda: AttentionPriorHandler(KernelGuidanceLoss()),
    "entropy": lambda: AttentionPriorHandler(AttentionEntropyLoss()),
    "anchor": lambda: AttentionAnchorHandler(NSFKLLoss()),
    "masked hard instances": MaskedHardInstanceHandler,
    "proximal l1": lambda: ProximalL1Handler(0.1),
}


TERMS_OF_LABELS = {"branches": (BranchLossHandler, ACMIL), "instances": (InstanceLossHandler, CLAM)}


@pytest.mark.parametrize("name", TERMS_OF_LABELS)
def test_steps_with_a_term_of_labels_do_not_wait(name, monkeypatch):
    handler, network = TERMS_OF_LABELS[name]
    counter = StepCounter()
    trainer = make_trainer(network(F, C), bag_batches(4), handler(), decollate=False)
    counter.attach(trainer)
    count_as_device(monkeypatch)
    trainer.run()
    assert dict(counter.counter.found) == {}


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_steps_of_a_trainer_do_not_wait(name, masked, monkeypatch):
    batches = [batch if masked else batch | {"image": batch["image"].nan_to_num()} for batch in bag_batches(4)]
    counter = StepCounter()
    trainer = make_trainer(ABMIL(F, C), batches if masked else without_mask(batches), HANDLERS[name](), decollate=False)
    counter.attach(trainer)
    count_as_device(monkeypatch)
    trainer.run()
    assert dict(counter.counter.found) == {}


@every_mined_net
def test_steps_that_hide_instances_do_not_wait(case, monkeypatch):
    counter = StepCounter()
    hide = HiddenInstances(high=0.4, low=0.2, random=0.2)
    handler = MaskedHardInstanceHandler(hide, **case.options)
    trainer = make_trainer(case.make(), case.batches, handler, max_epochs=2, decollate=False)
    counter.attach(trainer)
    count_as_device(monkeypatch)
    trainer.run()
    assert dict(counter.counter.found) == {}


def test_steps_that_a_fused_optimizer_skips_do_not_wait_and_change_no_teacher(monkeypatch):
    net, counts = fill(ABMIL(F, C)), []
    handler = AttentionAnchorHandler(NSFKLLoss(), momentum=0.5)
    trainer = make_trainer(net, bag_batches(4), handler, decollate=False)
    trainer.optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    overflow = iter([0.0, 1.0, 0.0, 1.0])

    @trainer.on(Events.ITERATION_STARTED)
    def set_overflow():
        trainer.optimizer.found_inf = torch.tensor(next(overflow))
        counts.append({name: value.clone() for name, value in _teacher(handler).items()})

    count_as_device(monkeypatch)
    trainer.run()
    assert handler.steps == 2
    moved = [any(not torch.equal(a[k], b[k]) for k in a) for a, b in pairwise([*counts[1:], _teacher(handler)])]
    assert moved == [False, True, False]


def _teacher(handler):
    return {} if handler._teacher is None else handler._teacher.state_dict()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1, 2]),
        lambda x: x.cpu(),
    ],
    ids=["item", "bool", "tolist", "mask", "nonzero", "values of the host", "cpu"],
)
def test_the_counter_finds_what_waits(read):
    x = torch.ones(2, 3)
    with WaitCounter() as counter:
        read(x)
    assert sum(counter.found.values()) >= 1
