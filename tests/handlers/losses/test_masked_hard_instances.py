"""Tests of masked hard instances against the published code, and on networks with and without a mask."""

import io

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionPriorHandler, HiddenInstances, MaskedHardInstanceHandler, TrainingState
from monai_mil_ext.losses import AttentionEntropyLoss
from monai_mil_ext.networks.nets import ABMIL, ACMIL, CLAM, TransMIL
from tests.handlers.networks import mil_model
from tests.handlers.training import CLASSES, F, bag_batches, hook_count, make_trainer, patch_batches, without_mask
from tests.helpers import fill
from tests.networks.baseline_cases import DATA, TOLERANCE, draw, expected, published_bags, published_weights

HIDE = HiddenInstances(high=0.2, candidates=1.0, low=0.3)


class PublishedNet(nn.Module):
    """Attention network of the published code: ReLU in the attention, and no biases there."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1024, 512)
        self.attend = nn.Sequential(nn.Linear(512, 128, bias=False), nn.ReLU(), nn.Linear(128, 1, bias=False))
        self.classify = nn.Linear(512, 2)

    def forward(self, x, mask=None):
        h = torch.relu(self.embed(x))
        scores = self.attend(h)
        attention = (scores if mask is None else scores.masked_fill(~mask[..., None], -torch.inf)).softmax(1)
        return self.classify((attention * h).sum(1))


def published_net(first=0):
    """The network with the weights of the case; those of the teacher start 100 parameters later."""
    net, weights = PublishedNet().double(), published_weights("mhim_v1")
    with torch.no_grad():
        for j, (p, w) in enumerate(zip(net.parameters(), weights.values(), strict=True)):
            v = draw(p.numel(), 20011, 101, 7919 * (j + first + 1)).view(p.shape)
            p.copy_(v * (6 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.3 * v)
            assert first or torch.equal(p, w)
    return net


def test_masked_hard_instances_match_the_published_code():
    net, (x, _) = published_net(), published_bags("mhim_v1")
    handler = MaskedHardInstanceHandler(
        HiddenInstances(high=0.1, candidates=1.0, low=0.25), layer="attend", momentum=0.9, decay=False
    )
    teacher = {name: p.detach().clone() for name, p in published_net(100).named_parameters()}
    handler.load_state_dict({"weight": 0.1, "steps": 0, "teacher": teacher})
    seen = {}
    net.classify.register_forward_pre_hook(lambda layer, args: seen.update(z=args[0]))
    net.register_forward_hook(
        lambda layer, args, kwargs, logits: seen.update(mask=kwargs["mask"], logits=logits), with_kwargs=True
    )
    batch = {"image": x, "label": torch.tensor([1])}
    trainer = make_trainer(net, [batch], handler, lr=0.0)
    trainer.run()
    assert seen["mask"][0].nonzero().flatten().tolist() == DATA["cases"]["mhim_v1"]["kept"]
    assert_close(seen["logits"][0], expected("mhim_v1", "logits"), **TOLERANCE)
    assert_close(seen["z"][0, :4], expected("mhim_v1", "student_embedding", "first"), **TOLERANCE)
    (output,) = trainer.state.output
    assert_close(output["masked_consistency"], DATA["cases"]["mhim_v1"]["consistency_loss"], **TOLERANCE)
    assert_close(output["loss"], DATA["cases"]["mhim_v1"]["total_loss"], **TOLERANCE)
    assert output["masked_consistency_hidden"] == 9 / 24
    average = handler.state_dict()["teacher"]["classify.weight"]
    assert_close(average.flatten()[:4], expected("mhim_v1", "ema_0.9_of_predictor_weight", "first"), **TOLERANCE)


def schedule(handler):
    """Return the fraction of high scores and the momentum of each of 8 steps in 4 epochs."""
    net, seen = fill(ABMIL(F, CLASSES)), []
    trainer = make_trainer(net, bag_batches(2), handler, max_epochs=4)
    update = handler.next_momentum
    handler.next_momentum = lambda: seen.append((handler.hide.high * handler._cosine(), update())) or update()
    trainer.run()
    return torch.tensor(seen, dtype=torch.float64).T


def test_schedules_are_the_published_ones():
    handler = MaskedHardInstanceHandler(HiddenInstances(high=0.03), momentum=0.9997, cosine_momentum=True)
    high, momentum = schedule(handler)
    table = DATA["mhim_schedules"]
    assert_close(high, torch.tensor(table["high ratio 0.03 to 0, 4 epochs of 2 steps"]).double(), rtol=1e-6, atol=0)
    assert_close(momentum, torch.tensor(table["momentum 0.9997 to 1, 4 epochs of 2 steps"]).double())


NETS = {
    "ABMIL": (lambda: fill(ABMIL(F, CLASSES, hidden_size=8, num_heads=2)), bag_batches(), {}),
    "CLAM": (lambda: fill(CLAM(F, CLASSES, hidden_size=8, num_instances=2, dropout=0)), bag_batches(), {}),
    "ACMIL": (lambda: fill(ACMIL(F, CLASSES, hidden_size=8, mask_rate=0.0)), bag_batches(), {}),
    "TransMIL": (lambda: fill(TransMIL(F, CLASSES, hidden_size=8, num_heads=2)), bag_batches(), {}),
    "MILModel": (lambda: mil_model("att"), patch_batches(), {"layer": "attention", "embedding_layer": "myfc"}),
}


@pytest.mark.parametrize("case", NETS.values(), ids=NETS)
def test_nothing_hidden_and_no_term_is_plain_training_bit_for_bit(case):
    make, batches, layers = case
    plain, same = make(), make()
    handler = MaskedHardInstanceHandler(HiddenInstances(high=0.0), weight=0.0, **layers)
    for net, handlers in ((plain, ()), (same, (handler,))):
        torch.manual_seed(1)
        make_trainer(net, batches, *handlers).run()
    assert_close(same.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert hook_count(same) == 0
    assert handler.steps == 4


@pytest.mark.parametrize("name", ["ABMIL", "CLAM", "MILModel"])
def test_hidden_instances_are_as_good_as_removed(name):
    """One step with the handler is a step on the bags without what their teacher, the network itself, hides."""
    make, batches, layers = NETS[name]
    batches = batches[:1]
    net, handler = make(), MaskedHardInstanceHandler(HIDE, weight=0.0, **layers)
    make_trainer(net, batches, handler).run()
    scores, teacher = [], make().eval()
    teacher.get_submodule(layers.get("layer", "score_tap")).register_forward_hook(lambda *a: scores.append(a[-1]))
    (batch,) = batches
    given = {key: batch[key] for key in ("mask",) if key in batch}
    teacher(batch["image"], **given)
    mask = batch.get("mask", torch.ones(batch["image"].shape[:2], dtype=torch.bool))
    kept = mask & ~HIDE(scores[0], mask)
    by_hand, losses = make().train(), []
    for bag, rows, label in zip(batch["image"], kept, batch["label"], strict=True):
        losses.append(nn.functional.cross_entropy(by_hand(bag[rows][None]), label[None]))
    torch.stack(losses).mean().backward()
    with torch.no_grad():
        for p in by_hand.parameters():
            p.sub_(0 if p.grad is None else 0.1 * p.grad)
    assert_close(net.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(kept, mask)


@pytest.mark.parametrize("case", NETS.values(), ids=NETS)
def test_term_trains_towards_the_embedding_of_the_teacher(case):
    make, batches, layers = case
    with_term, without = make(), make()
    for net, weight in ((with_term, 5.0), (without, 0.0)):
        trainer = make_trainer(net, batches, MaskedHardInstanceHandler(HIDE, weight=weight, **layers))
        trainer.run()
        assert ("masked_consistency" in trainer.state.metrics) == (weight > 0)
    gaps = [(a - b).abs().max().item() for a, b in zip(with_term.parameters(), without.parameters(), strict=True)]
    assert max(gaps) > 1e-4


def test_a_network_without_a_given_mask_gets_one():
    masks, net = [], fill(ABMIL(F, CLASSES))
    net.register_forward_hook(lambda layer, args, kwargs, out: masks.append(kwargs["mask"]), with_kwargs=True)
    batches = [batch | {"image": batch["image"].nan_to_num(0.5)} for batch in bag_batches(1)]
    make_trainer(net, without_mask(batches), MaskedHardInstanceHandler(HIDE)).run()
    assert masks[0].sum(1).tolist() == [2, 2, 2]  # of 7, 2 high and 3 low ones are hidden


def test_terms_of_other_handlers_see_what_the_network_sees():
    seen = []

    class Watched(AttentionEntropyLoss):
        def forward(self, attention, mask=None):
            seen.append(mask)
            return super().forward(attention, mask)

    for handlers in ((0, 1), (1, 0)):
        both = (MaskedHardInstanceHandler(HIDE), AttentionPriorHandler(Watched()))
        make_trainer(fill(ABMIL(F, CLASSES)), bag_batches(1), *[both[i] for i in handlers]).run()
    hidden = [torch.tensor([7, 4, 5]) - mask.sum(1) for mask in seen]
    assert [row.tolist() for row in hidden] == [[5, 3, 3], [5, 3, 3]]


def test_evaluation_hides_nothing():
    net, twin, (batch,), seen = fill(ABMIL(F, CLASSES)), fill(ABMIL(F, CLASSES)), bag_batches(1), []
    trainer = make_trainer(net, [batch], MaskedHardInstanceHandler(HIDE))

    def evaluate():
        twin.load_state_dict(net.state_dict())
        seen.extend(model.eval()(batch["image"], batch["mask"]) for model in (net, twin))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, evaluate)
    trainer.run()
    assert torch.equal(*seen)


def test_state_continues_bit_for_bit():
    def run(epochs, *states):
        net, handler = fill(ABMIL(F, CLASSES)), MaskedHardInstanceHandler(HIDE, momentum=0.5, decay=False)
        if states:
            net.load_state_dict(states[0])
            handler.load_state_dict(states[1])
        make_trainer(net, bag_batches(), TrainingState(handler=handler), handler, max_epochs=epochs).run()
        return net.state_dict(), handler.state_dict()

    file = io.BytesIO()
    torch.save(run(1), file)
    file.seek(0)
    net, handler = torch.load(file, weights_only=True)
    assert_close(run(1, net, handler), run(2), rtol=0, atol=0)


def test_layer_that_is_not_called_is_named():
    net = fill(ABMIL(F, CLASSES, per_class=True))  # its classifier is a weight
    with pytest.raises(ValueError, match=r"`embedding_layer` must be called in every forward .*'classify'"):
        make_trainer(net, bag_batches(1), MaskedHardInstanceHandler(HIDE)).run()
    with pytest.raises(ValueError, match="`embedding_layer` must be the path of a submodule of ABMIL, got 'myfc'"):
        make_trainer(net, bag_batches(1), MaskedHardInstanceHandler(embedding_layer="myfc")).run()


def test_a_compiled_network_is_refused():
    options = {"compile": True, "compile_kwargs": {"backend": "eager"}}
    with pytest.raises(ValueError, match="`network` must not be compiled"):
        make_trainer(fill(ABMIL(F, CLASSES)), bag_batches(1), MaskedHardInstanceHandler(), **options).run()
