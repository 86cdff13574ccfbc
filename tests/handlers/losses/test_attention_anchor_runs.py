"""Tests of AttentionAnchorHandler in runs: resuming, validation, priors, logs, warning, two processes, errors."""

import copy
import math
import warnings

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointLoader, CheckpointSaver, ValidationHandler
from monai.networks import eval_mode
from monai.utils import set_determinism
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import monai_mil_ext  # noqa: F401  what a bundle imports
from monai_mil_ext.handlers import AttentionAnchorHandler, AttentionPriorHandler, TrainingState
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.metrics import attention_divergence
from monai_mil_ext.networks.nets import ABMIL, ASMIL
from tests.handlers.training import CLASSES, F, bag_batches, hook_count, make_trainer
from tests.helpers import fill


def anchor(**options):
    return AttentionAnchorHandler(NSFKLLoss(), **{"beta": 0.5, "momentum": 0.9} | options)


def asmil(**options):
    return fill(ASMIL(F, CLASSES, hidden_size=8, num_tokens=3, num_heads=2, **options))


def resumable(folder, epochs, resume=False):
    """Return all losses and the final state of a run that saves a checkpoint after each epoch."""
    set_determinism(3)
    net, handler, losses = asmil(), anchor(beta_warmup_steps=6, start_step=1), []
    trainer = make_trainer(net, bag_batches(), handler, max_epochs=epochs)
    state = TrainingState(anchor=handler)
    parts = {"net": net, "optimizer": trainer.optimizer, "trainer": trainer, "state": state}
    CheckpointSaver(str(folder), parts, save_interval=1, n_saved=9).attach(trainer)
    if resume:
        CheckpointLoader(str(folder / "checkpoint_epoch=2.pt"), parts).attach(trainer)
    state.attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output[0]["loss"]))
    trainer.state.max_epochs = epochs
    trainer.run()
    return losses, net.state_dict(), handler.state_dict()


def test_attention_anchor_resumes_bit_for_bit(tmp_path):
    losses, weights, state = resumable(tmp_path, 4)
    again, again_weights, again_state = resumable(tmp_path, 4, resume=True)
    assert again == losses[8:]
    assert_close(again_weights, weights, rtol=0, atol=0)
    assert_close(again_state, state, rtol=0, atol=0)
    assert state["steps"] == 16


def test_attention_anchor_state_before_and_after_the_first_run():
    first = anchor()
    make_trainer(asmil(), bag_batches(), first).run()
    saved, second = first.state_dict(), anchor()
    second.load_state_dict(saved)
    assert_close(second.state_dict(), saved, rtol=0, atol=0)
    third = anchor()
    make_trainer(asmil(), bag_batches(2), third).run()
    third.load_state_dict(saved)
    assert_close(third.state_dict(), saved, rtol=0, atol=0)


def test_attention_anchor_copies_weights_loaded_at_the_start_of_a_run(tmp_path):
    pretrained = ASMIL(F, CLASSES, hidden_size=8, num_tokens=3, num_heads=2)
    torch.save({"net": pretrained.state_dict()}, tmp_path / "net.pt")
    net, handler = asmil(), anchor(momentum=1.0)
    trainer = make_trainer(net, bag_batches(), handler)
    CheckpointLoader(str(tmp_path / "net.pt"), {"net": net}).attach(trainer)  # behind the handler
    trainer.run()
    assert_close(handler.state_dict()["anchor"], dict(pretrained.named_parameters()), rtol=0, atol=0)


def test_attention_anchor_is_kept_in_a_second_run():
    def train(*epochs):
        handler, net = anchor(), asmil(token_drop=0.0, dropout=0.0)
        trainer = make_trainer(net, bag_batches(), handler)
        for total in epochs:
            trainer.state.max_epochs = total
            trainer.run()
            assert hook_count(net) == 0
            assert not trainer.optimizer._optimizer_step_post_hooks
        return handler.state_dict(), net.state_dict()

    assert_close(train(1, 2), train(2), rtol=0, atol=0)


def test_attention_anchor_does_not_affect_validation():
    seen = []

    def train(validate):
        net, handler = asmil(), anchor()
        trainer = make_trainer(net, bag_batches(), handler, max_epochs=2)
        evaluator = SupervisedEvaluator("cpu", bag_batches(1), net, prepare_batch=trainer.prepare_batch)

        def compare(engine):
            batch = bag_batches(1)[0]
            with torch.no_grad(), eval_mode(net):
                seen.append(torch.equal(engine.state.output[0]["pred"], net(batch["image"], batch["mask"])[0]))

        evaluator.add_event_handler(Events.ITERATION_COMPLETED, compare)
        if validate:
            ValidationHandler(1, evaluator, epoch_level=False).attach(trainer)
        torch.manual_seed(1)
        trainer.run()
        assert not [name for name in net.state_dict() if "anchor" in name]
        assert net.state_dict().keys() == asmil().state_dict().keys()
        return net.state_dict(), handler.state_dict()

    assert_close(train(True), train(False), rtol=0, atol=0)
    assert seen == [True] * 8


CONFIG = """
imports: ["$import monai_mil_ext"]
network: {_target_: ASMIL, in_features: 6, num_classes: 2, hidden_size: 8, num_tokens: 2, num_heads: 2}
handlers:
- {_target_: AttentionPriorHandler, loss: {_target_: NormalGuidanceLoss}, weight: 0.3}
- {_target_: AttentionAnchorHandler, loss: {_target_: NSFKLLoss, center: mean}, beta: 0.2, momentum: 0.9}
"""


def test_attention_anchor_and_prior_in_a_config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG)
    terms = {}
    for which in ([0], [1], [0, 1], [1, 0]):
        parser = ConfigParser()
        parser.read_config(path)
        net, handlers = fill(parser.get_parsed_content("network")), parser.get_parsed_content("handlers")
        assert [type(h) for h in handlers] == [AttentionPriorHandler, AttentionAnchorHandler]
        trainer = make_trainer(net, bag_batches(1), *(handlers[i] for i in which), decollate=False)
        torch.manual_seed(1)
        trainer.run()
        terms[tuple(which)] = trainer.state.output
    both = terms[0, 1]
    for name, other in (("attention_prior", terms[0,]), ("attention_anchor", terms[1,])):
        assert_close(both[name], other[name])
        assert other["loss"] > both["loss"] - both["attention_prior"] - both["attention_anchor"]
    bag_loss = nn.CrossEntropyLoss()(both["pred"], both["label"])
    assert_close(both["loss"], bag_loss + 0.3 * both["attention_prior"] + 0.2 * both["attention_anchor"])
    assert_close(terms[1, 0]["loss"], both["loss"])


def test_attention_anchor_logs_its_values():
    net, handler, batches = asmil(), anchor(), bag_batches(2)
    trainer = make_trainer(net, batches, handler, decollate=False, lr=1.0)
    outputs = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.append(dict(e.state.output)))
    trainer.run()
    names = ["", "_jsd", "_mean_score", "_uniformity"]
    assert sorted(k for k in outputs[0] if k.startswith("attention_anchor")) == [f"attention_anchor{n}" for n in names]
    for ending in names:
        values = [o[f"attention_anchor{ending}"].item() for o in outputs]
        assert_close(trainer.state.metrics[f"attention_anchor{ending}"], sum(values) / 2)
    batch, start = batches[0], asmil()
    scores, mask = start.forward_bag(batch["image"], batch["mask"]).scores, batch["mask"]
    assert_close(outputs[0]["attention_anchor_mean_score"], scores[mask].mean().detach())
    a = torch.stack(
        [z[m].softmax(0).clamp(min=1e-30).mul(z[m].log_softmax(0)).sum(0) for z, m in zip(scores, mask, strict=True)]
    )
    share = (-a / mask.sum(1, keepdim=True).log()).mean().item()
    assert_close(outputs[0]["attention_anchor_uniformity"].item(), share)
    assert outputs[0]["attention_anchor_jsd"] < 1e-7  # nothing has moved yet, and no dropout acts on the scores
    moved = handler._teacher.distance(net).item()
    assert_close(trainer.state.metrics["attention_anchor_distance"], moved)
    assert moved > 0
    assert 0 < outputs[1]["attention_anchor_jsd"] < math.log(2)


def test_attention_anchor_divergence_is_that_of_mean_attention():
    handler, net, batch = anchor(momentum=1.0), asmil(), bag_batches(1)[0]
    trainer = make_trainer(net, [batch, batch], handler, decollate=False, lr=1.0)
    weights = []
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: weights.append({k: v.clone() for k, v in net.state_dict().items()})
    )
    trainer.run()
    nets = []
    for state in weights:
        twin = asmil()
        twin.load_state_dict(state)
        nets.append(twin.forward_bag(batch["image"], batch["mask"]).attention)
    assert_close(trainer.state.output["attention_anchor_jsd"], attention_divergence(nets[1], nets[0]).mean().detach())


def toy(beta, bags, size, features, shift, share, epochs, stop, **options):
    """Train on bags of which every second has shifted instances; return warnings and last metrics."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    label = torch.arange(bags) % 2
    x = torch.randn(bags, size, features, generator=draw)
    x[label == 1, : int(size * share)] += shift
    order = torch.randperm(bags, generator=draw)
    batches = [{"image": x[i : i + 1], "label": label[i : i + 1]} for i in order]
    handler = AttentionAnchorHandler(NSFKLLoss(temperature=0.5), beta=beta)
    trainer = make_trainer(ASMIL(features, 2, **options), batches, handler, max_epochs=epochs)
    trainer.optimizer = torch.optim.AdamW(trainer.network.parameters(), lr=2e-3)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop), trainer.terminate)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.run()
    return [str(w.message) for w in caught if "uniform" in str(w.message)], trainer.state.metrics


SMALL = {"bags": 40, "size": 100, "features": 16, "shift": 2.0, "share": 0.04, "epochs": 20, "stop": 7}
SMALL |= {"hidden_size": 32, "num_tokens": 4, "num_heads": 4, "n_drop": 2}
PAGE = {"bags": 100, "size": 400, "features": 32, "shift": 1.0, "share": 0.03, "epochs": 25, "stop": 25}
PAGE |= {"hidden_size": 64, "num_tokens": 8, "num_heads": 8, "n_drop": 4}
every_toy = pytest.mark.parametrize(
    "toy_options",
    [SMALL, pytest.param(PAGE, marks=pytest.mark.slow(buys="the run that the page of the anchor shows"))],
    ids=["s", "page"],
)


@every_toy
def test_attention_anchor_warns_once_of_uniform_attention(toy_options):
    caught, metrics = toy(1.0, **toy_options)
    assert len(caught) == 1
    assert caught[0].startswith("Attention is uniform (entropy ")
    assert f" of {toy_options['epochs']} epochs: `beta` 1.0 may be too large" in caught[0]
    assert metrics["attention_anchor_uniformity"] > 0.995
    assert metrics["attention_anchor_jsd"] < 1e-3  # stable, but useless


@every_toy
def test_attention_anchor_does_not_warn_of_useful_attention(toy_options):
    caught, metrics = toy(0.0025, **toy_options)
    assert caught == []
    assert metrics["attention_anchor_uniformity"] < 0.98


@pytest.mark.parametrize(
    ("uniformity", "warned_at"),
    [
        ([0.999] * 30, 9),
        ([0.999] * 8 + [0.9] + [0.999] * 21, 12),
        ([0.999] * 8 + [0.9] * 22, None),
        ([0.995] * 30, None),
        ([float("nan")] * 30, None),
    ],
)
def test_attention_anchor_warns_of_persistent_uniformity_only(uniformity, warned_at):
    handler, at = anchor(), None
    for epoch, value in enumerate(uniformity, start=1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            handler._warn_if_uniform(value, epoch, max_epochs=30)
        if caught:
            assert at is None
            at = epoch
    assert at == warned_at


def test_attention_anchor_term_is_float32_under_autocast():
    seen = []

    def loss(scores, anchor_scores, mask):
        seen.append((scores.dtype, anchor_scores.dtype, torch.is_autocast_enabled("cpu")))
        return NSFKLLoss()(scores, anchor_scores, mask)

    trainer = make_trainer(asmil(), bag_batches(1), AttentionAnchorHandler(loss), decollate=False)
    with torch.autocast("cpu", torch.bfloat16):
        trainer.run()
    assert seen == [(torch.bfloat16, torch.bfloat16, False)]
    assert trainer.state.output["attention_anchor"].dtype == torch.float32


def test_attention_anchor_dtype_affects_the_anchor_only():
    seen, net = [], asmil()
    twin, batch = copy.deepcopy(net).eval(), bag_batches(1)

    def loss(scores, anchor_scores, mask):
        seen.append((scores.dtype, anchor_scores))
        return NSFKLLoss()(scores, anchor_scores, mask)

    handler = AttentionAnchorHandler(loss, anchor_dtype=torch.bfloat16)
    make_trainer(net, batch, handler, decollate=False).run()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = twin.forward_bag(batch[0]["image"], batch[0]["mask"]).scores
    ((online, anchor_scores),) = seen
    assert (online, anchor_scores.dtype) == (torch.float32, torch.bfloat16)
    assert_close(anchor_scores, expected, rtol=0, atol=0)
    assert not torch.equal(expected.float(), twin.forward_bag(batch[0]["image"], batch[0]["mask"]).scores)
    assert {t.dtype for t in handler.state_dict()["anchor"].values()} == {torch.float32}


def test_attention_anchor_loss_is_a_plain_tensor():
    plain, meta = bag_batches(1), bag_batches(1)
    meta[0]["image"] = MetaTensor(meta[0]["image"])
    outputs = []
    for batches in (plain, meta):
        trainer = make_trainer(asmil(), batches, anchor(), decollate=False)
        torch.manual_seed(1)
        trainer.run()
        outputs.append(trainer.state.output["attention_anchor"])
    assert type(outputs[1]) is torch.Tensor
    assert torch.equal(*outputs)


class Normed(nn.Module):
    """ABMIL after a batch norm, whose running statistics differ between processes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(F, momentum=0.5)
        self.net = ABMIL(F, CLASSES)

    def forward(self, x, mask=None):
        return self.net(self.norm(x.nan_to_num().mT).mT, mask)


def train_one_process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net, handler = fill(Normed()), anchor(layer="net.score_tap", momentum=0.5)
    trainer = make_trainer(DistributedDataParallel(net), bag_batches(3, seed=rank), handler)
    trainer.run()
    torch.save({"anchor": handler.state_dict(), "online": net.norm.running_mean}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_attention_anchor_is_equal_in_all_processes(tmp_path):
    torch.multiprocessing.start_processes(train_one_process, (str(tmp_path),), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert not torch.equal(first["online"], second["online"])
    assert_close(first["anchor"], second["anchor"], rtol=0, atol=0)
    assert first["anchor"]["steps"] == 3
    assert not torch.equal(first["anchor"]["anchor"]["net.classify.weight"], fill(Normed()).net.classify.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "`beta` must be finite and not negative, got -1.0"),
        ({"momentum": 1.5}, r"`momentum` must be in \[0, 1\], got 1.5"),
        ({"momentum": "1"}, r"`momentum` must be in \[0, 1\], got '1'"),
        ({"anchor_dtype": "bfloat16"}, "`anchor_dtype` must be a floating type or None, got 'bfloat16'"),
        ({"every": 0}, "`every` must be a positive integer, got 0"),
        ({"start_step": -1}, "`start_step` must be an integer from 0, got -1"),
        ({"anchor_dtype": torch.int8}, "`anchor_dtype` must be a floating type or None, got torch.int8"),
        ({"beta_warmup_steps": 0.5}, "`beta_warmup_steps` must be an integer from 0, got 0.5"),
    ],
)
def test_attention_anchor_names_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        anchor(**options)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_attention_anchor_names_an_unknown_layer_at_the_start(beta):
    with pytest.raises(ValueError, match="got 'score_tab'; did you mean 'score_tap'"):
        make_trainer(asmil(), bag_batches(), anchor(layer="score_tab", beta=beta)).run()


def test_attention_anchor_suffixes_must_not_be_taken():
    second = AttentionPriorHandler(NormalGuidanceLoss(), name="attention_anchor_jsd")
    with pytest.raises(ValueError, match=r"`name` must not be taken .*, got 'attention_anchor_jsd'"):
        make_trainer(asmil(), bag_batches(), second, anchor()).run()
