"""Laws of masked hard instances on every network with scores, MONAI's among them, in padded batches."""

import io
import re
from functools import partial

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.handlers import HiddenInstances, MaskedHardInstanceHandler, TrainingState
from monai_mil_ext.inferers import BagInferer
from tests.contracts.mining_cases import (
    INSTANCE_CLASSIFIER,
    MINED,
    NO_CLASSIFIER,
    NO_SCORES,
    every_mined_net,
)
from tests.contracts.net_cases import CASES
from tests.handlers.training import bag_batches, hook_count, in_float64, make_trainer

LR = 0.05
FIXED = HiddenInstances(high=0.2, candidates=1.0, low=0.3)
DRAWN = HiddenInstances(high=0.4, candidates=0.5, low=0.2, random=0.2)
ALL = HiddenInstances(high=1.0, candidates=1.0)


def step(case, batch, hide=FIXED, **options):
    """Return the network, the trainer and the handler after one step."""
    net = case.make()
    handler = MaskedHardInstanceHandler(hide, momentum=0.5, **{**case.options, **options})
    trainer = make_trainer(net, [batch], handler, lr=LR, decollate=False)
    torch.manual_seed(1)
    trainer.run()
    return net, trainer, handler


def by_hand(case, batch):
    """Return the network after one step with the loss of the paper, from a copy as the teacher."""
    net, teacher, options = case.make(), case.make().eval(), case.options
    path, classifier = options.get("layer", "score_tap"), options.get("embedding_layer")
    seen, hidden = {}, None
    for name, model in (("teacher", teacher), ("student", net)):
        model.get_submodule(path).register_forward_hook(lambda _l, _a, out, name=name: seen.update({name: out}))
        if classifier is not None:
            tap = model.get_submodule(classifier)
            tap.register_forward_pre_hook(lambda _l, args, name=name: seen.update({f"{name} embedding": args[0]}))
    torch.manual_seed(1)
    x, masks = batch["image"], [batch["mask"]] if "mask" in batch else []
    with torch.no_grad():
        teacher(x, *masks)
    scores = seen["teacher"] if seen["teacher"].ndim == 3 else seen["teacher"][..., None]
    valid = masks[0] if masks else torch.ones(x.shape[:2], dtype=torch.bool)
    hidden = FIXED(scores, valid)
    if masks:
        logits = net(x, valid & ~hidden)
    else:
        net.get_submodule(path).register_forward_hook(
            lambda _l, _a, out: out.masked_fill(hidden[..., None], -torch.inf)
        )
        logits = net(x)
    loss = nn.functional.cross_entropy(logits, batch["label"])
    if classifier is not None:
        target, z = (seen[f"{name} embedding"].flatten(1) for name in ("teacher", "student"))
        loss = loss - 2 * ((target / 0.1).softmax(1) * z.log_softmax(1)).sum(1).mean()
    loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            p.sub_(0 if p.grad is None else LR * p.grad)
    return net


@every_mined_net
def test_mining_law_a_step_is_that_of_the_mask_without_what_the_teacher_hides(case):
    before = case.make().state_dict()
    net, trainer, handler = step(case, case.batches[0])
    assert_close(net.state_dict(), by_hand(case, case.batches[0]).state_dict(), rtol=1e-9, atol=1e-12)
    moved = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    assert moved
    teacher = handler.state_dict()["teacher"]
    expected = {name: (value + before[name]) / 2 for name, value in net.named_parameters()}
    assert_close({name: teacher[name] for name in expected}, expected, rtol=1e-9, atol=1e-12)
    assert torch.isfinite(trainer.state.output["loss"])
    assert hook_count(net) == hook_count(case.make())


def without_draws(make):
    """Return a network that draws nothing in training: what it draws would depend on the length of the padding."""
    net = make()
    for module in net.modules():
        vars(module).update({key: 0 for key in ("p", "token_drop", "n_drop") if hasattr(module, key)})
    return net


@pytest.mark.parametrize("name", [name for name in MINED if name in CASES])
def test_mining_law_padding_changes_nothing(name):
    case = MINED[name]._replace(make=partial(without_draws, MINED[name].make))
    x, mask = case.batches[0]["image"], case.batches[0]["mask"]
    longer = {
        "image": nn.functional.pad(x.masked_fill(~mask.unsqueeze(-1), 7.0), (0, 0, 0, 3), value=-7.0),
        "mask": nn.functional.pad(mask, (0, 3)),
    }
    states = [step(case, batch)[0].state_dict() for batch in (case.batches[0], case.batches[0] | longer)]
    assert_close(states[1], states[0], rtol=1e-9, atol=1e-12)


@every_mined_net
@pytest.mark.parametrize("number", [1, 2])
def test_mining_law_one_instance_of_each_bag_remains(case, number):
    batch = {**case.batches[0], "image": case.batches[0]["image"][:, :number].nan_to_num(0.5)}
    if "mask" in batch:
        batch["mask"] = torch.ones(batch["image"].shape[:2], dtype=torch.bool)
    net, trainer, _ = step(case, batch, ALL)
    assert torch.isfinite(trainer.state.output["loss"])
    assert all(p.isfinite().all() for p in net.parameters())
    hidden = trainer.state.output.get("masked_consistency_hidden")
    assert hidden is None or hidden == pytest.approx((number - 1) / number)


def run(case, saved=None, inferer=None, **options):
    """Return the state at the end of two epochs and what a checkpoint has at the end of the first."""
    net = case.make()
    handler = MaskedHardInstanceHandler(DRAWN, momentum=0.5, cosine_momentum=True, **case.options)
    state = TrainingState(handler=handler)
    options = options if inferer is None else {"inferer": inferer, **options}
    trainer = make_trainer(net, case.batches, handler, state, max_epochs=2, lr=LR, **options)
    parts, file = {"net": net, "trainer": trainer, "state": state}, io.BytesIO()
    torch.manual_seed(2)
    if saved is None:
        save = lambda: torch.save({name: part.state_dict() for name, part in parts.items()}, file)  # noqa: E731
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), save)
    else:
        saved.seek(0)
        states = torch.load(saved, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(states[name])
    trainer.run()
    return (net.state_dict(), handler.state_dict()), file


@every_mined_net
def test_mining_law_a_seed_repeats_a_run_and_a_checkpoint_continues_it_bit_for_bit(case):
    end, file = run(case)
    again, _ = run(case)
    torch.rand(3)
    continued, _ = run(case, saved=file)
    assert_close(again, end, rtol=0, atol=0)
    assert_close(continued, end, rtol=0, atol=0)
    assert end[1]["steps"] == 4


@every_mined_net
def test_mining_law_evaluation_hides_nothing(case):
    net, twin, seen, x = case.make(), case.make(), [], case.batches[0]["image"]
    masks = [case.batches[0]["mask"]] if "mask" in case.batches[0] else []
    trainer = make_trainer(net, case.batches, MaskedHardInstanceHandler(FIXED, **case.options), lr=LR)

    def evaluate():
        twin.load_state_dict(net.state_dict())
        with torch.no_grad():
            seen.extend(model.eval()(x, *masks) for model in (net, twin))
        net.train()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, evaluate)
    trainer.run()
    assert_close(seen[::2], seen[1::2], rtol=0, atol=0)
    assert len(seen) == 4


@every_mined_net
def test_mining_law_bfloat16_trains(case):
    half = [batch | {"image": batch["image"].float()} for batch in case.batches]
    make = lambda: case.make().float()  # noqa: E731
    net, handler = make(), MaskedHardInstanceHandler(FIXED, **case.options)
    trainer = make_trainer(net, half, handler, lr=LR, inferer=BagInferer(amp_dtype=torch.bfloat16), decollate=False)
    torch.manual_seed(1)
    trainer.run()
    output = trainer.state.output
    assert output["loss"].isfinite()
    assert output["loss"].dtype == output.get("masked_consistency", output["loss"]).dtype == torch.float32
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in net.parameters())


REFUSED = {
    **dict.fromkeys(NO_SCORES, r"`layer` must put out a tensor \(B, N\) or .*|`layer` must be the path"),
    **dict.fromkeys(NO_CLASSIFIER, "`embedding_layer` must be "),
    **dict.fromkeys(INSTANCE_CLASSIFIER, r"`embedding_layer` must be a classifier of bags, .* from 'classify'; with"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_mining_law_a_network_without_scores_or_embedding_is_refused_by_name(name):
    net = CASES[name]().double()
    layer = "classifier" if name.startswith("QGMIL") else "classify"
    layer = "members.0.classify" if name.startswith("BagEnsemble") else layer
    with pytest.raises(ValueError, match=REFUSED[name]) as raised:
        make_trainer(net, in_float64(bag_batches(1)), MaskedHardInstanceHandler(embedding_layer=layer)).run()
    assert re.search("got (None|'classify'|NoneType|nothing|.*for one)", str(raised.value))
    assert hook_count(net) == hook_count(CASES[name]())
