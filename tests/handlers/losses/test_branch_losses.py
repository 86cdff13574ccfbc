"""Tests that BranchLossHandler gives the complete loss of ACMIL in value and gradient."""

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import monai_mil_ext  # noqa: F401  what a bundle imports
from monai_mil_ext.handlers import AttentionPriorHandler, BranchLossHandler
from monai_mil_ext.losses import BranchDiversityLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.networks import NUM_BRANCHES, acmil, acmil_terms
from tests.handlers.training import CLASSES, F, bag_batches, gradients, hook_count, in_float64, make_trainer

HANDLERS = """
- _target_: BranchLossHandler
- _target_: AttentionPriorHandler
  loss: {_target_: BranchDiversityLoss}
  layer: mask_top
  name: branch_diversity
"""


def acmil_handlers():
    """Return the handlers as a bundle creates them."""
    return ConfigParser({"handlers": yaml.safe_load(HANDLERS)}).get_parsed_content("handlers")


def test_branch_loss_gradients_and_values_are_those_of_the_sum():
    (batch,) = batches = in_float64(bag_batches(1))
    net, same = acmil(), acmil().train()
    trainer = make_trainer(net, batches, *acmil_handlers())
    torch.manual_seed(1)
    trainer.run()
    torch.manual_seed(1)
    terms = acmil_terms(same, batch)
    sum(terms).backward()
    assert_close(gradients(net), gradients(same), rtol=1e-12, atol=1e-12)
    assert all(p.grad.any() for p in net.classify_branch.parameters())
    assert_close(trainer.state.output[0]["loss"], sum(terms).item(), rtol=1e-12, atol=1e-12)
    metrics = [trainer.state.metrics[name] for name in ("branch_loss", "branch_diversity")]
    assert_close(metrics, [term.item() for term in terms[1:]], rtol=1e-12, atol=1e-12)
    assert hook_count(net) == 0


def test_branch_loss_with_gradient_accumulation():
    batches = in_float64(bag_batches(7))
    net, same = acmil(), acmil().train()
    torch.manual_seed(1)
    make_trainer(net, batches, *acmil_handlers(), accumulation_steps=3).run()
    optimizer = torch.optim.SGD(same.parameters(), lr=0.1)
    torch.manual_seed(1)
    for i, batch in enumerate(batches):
        (sum(acmil_terms(same, batch)) / 3).backward()
        if i % 3 == 2 or i == 6:
            optimizer.step()
            optimizer.zero_grad()
    assert_close(net.state_dict(), same.state_dict(), rtol=1e-12, atol=1e-12)


def test_branch_loss_with_given_loss_and_weight():
    smooth = nn.CrossEntropyLoss(label_smoothing=0.2)
    (batch,) = batches = in_float64(bag_batches(1))
    net, same = acmil(mask_rate=0.0), acmil(mask_rate=0.0).train()
    make_trainer(net, batches, BranchLossHandler(smooth, weight=0.3, name="own")).run()
    seen = []
    same.branch_tap.register_forward_hook(lambda *args: seen.append(args[-1]))
    bag_loss = cross_entropy(same(batch["image"], batch["mask"]), batch["label"])
    (bag_loss + 0.3 * sum(smooth(y, batch["label"]) for y in seen[0].unbind(1)) / NUM_BRANCHES).backward()
    assert_close(gradients(net), gradients(same), rtol=1e-12, atol=1e-12)


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def test_branch_loss_term_is_float32_under_autocast():
    seen = []

    def loss(logits, label):
        seen.append((logits.dtype, torch.is_autocast_enabled("cpu")))
        return cross_entropy(logits, label)

    (batch,) = bag_batches(1)
    net, same = acmil(torch.float32), acmil(torch.float32).train()
    trainer = make_trainer(net, [batch], BranchLossHandler(loss))
    torch.manual_seed(1)
    with autocast():
        trainer.run()
    assert seen == [(torch.float32, False)] * NUM_BRANCHES
    torch.manual_seed(1)
    taps = []
    same.branch_tap.register_forward_hook(lambda *args: taps.append(args[-1]))
    with autocast():
        total = cross_entropy(same(batch["image"], batch["mask"]), batch["label"])
    assert taps[0].dtype == torch.bfloat16
    total = total + torch.stack([cross_entropy(y.float(), batch["label"]) for y in taps[0].unbind(1)]).mean()
    with autocast():  # as the trainer's backward pass
        total.backward()
    assert_close(gradients(net), gradients(same), rtol=0, atol=0)


def test_branch_loss_does_not_affect_validation():
    def train(*extra):
        net = acmil(torch.float32)
        calls = []

        def loss(logits, label):
            calls.append(len(logits))
            return cross_entropy(logits, label)

        torch.manual_seed(1)
        make_trainer(net, bag_batches(), *[make(net) for make in extra], BranchLossHandler(loss), max_epochs=2).run()
        return net.state_dict(), calls

    def validation(net):
        trainer = make_trainer(net, bag_batches(2, sizes=(3, 2)))
        evaluator = SupervisedEvaluator("cpu", trainer.data_loader, net, prepare_batch=trainer.prepare_batch)
        return ValidationHandler(1, evaluator, epoch_level=False)

    weights, calls = train(validation)
    assert calls == [3] * 8 * NUM_BRANCHES
    assert_close(weights, train()[0], rtol=0, atol=0)


def test_branch_loss_with_weight_zero_changes_nothing():
    net, same = acmil(torch.float32), acmil(torch.float32)
    for network, extra in ((net, [BranchLossHandler(weight=0, label_key="absent")]), (same, [])):
        torch.manual_seed(1)
        make_trainer(network, bag_batches(), *extra).run()
    assert_close(net.state_dict(), same.state_dict(), rtol=0, atol=0)


def test_branch_loss_with_meta_tensor_labels():
    outputs = []
    for wrap in (torch.as_tensor, MetaTensor):
        batch = bag_batches(1)[0]
        batch["label"] = wrap(batch["label"])
        torch.manual_seed(1)
        trainer = make_trainer(acmil(torch.float32), [batch], BranchLossHandler(), decollate=False)
        trainer.run()
        outputs.append(trainer.state.output["branch_loss"])
    assert type(outputs[1]) is torch.Tensor
    assert outputs[0] == outputs[1]


def test_branch_loss_passes_labels_of_any_form():
    """Labels are passed to the loss unchanged, for example several labels per bag."""
    batch = bag_batches(1)[0]
    batch["label"] = {"grade": batch["label"]}

    def loss(logits, label):
        return cross_entropy(logits, label["grade"])

    def prepare(batch, *_, **__):
        return batch["image"], batch["label"], (), {"mask": batch["mask"]}

    options = {"decollate": False, "prepare_batch": prepare}
    trainer = make_trainer(acmil(torch.float32), [batch], BranchLossHandler(), **options)
    trainer.loss_function = loss
    trainer.run()
    assert trainer.state.metrics["branch_loss"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_key": "lable"}, "`label_key` must be one of 'image', 'label', .*, got 'lable'; did you mean 'label'"),
        ({"layer": "classify"}, r"`layer` must put out a tensor \(B, K, C\), got \(3, 2\) from 'classify'"),
        ({"layer": "branch_tab"}, "got 'branch_tab'; did you mean 'branch_tap'"),
        ({"name": "loss"}, "`name` must not be taken in the trainer's output .*, got 'loss'"),
        ({"weight": -1.0}, "`weight` must be finite and not negative, got -1.0"),
    ],
)
def test_branch_loss_names_invalid_options(options, message):
    net = acmil(torch.float32)
    with pytest.raises(ValueError, match=message):
        make_trainer(net, bag_batches(1), BranchLossHandler(**options)).run()
    assert hook_count(net) == 0


def test_branch_loss_names_a_network_without_branches():
    with pytest.raises(ValueError, match="`layer` must be the path of a submodule of ABMIL, got 'branch_tap'"):
        make_trainer(ABMIL(F, CLASSES), bag_batches(1), BranchLossHandler()).run()


def test_branch_loss_refuses_a_tuple():
    net = acmil(torch.float32)
    net.branch_tap.register_forward_hook(lambda *args: (args[-1],))
    with pytest.raises(ValueError, match=r"`layer` must put out a tensor \(B, K, C\), got tuple from 'branch_tap'"):
        make_trainer(net, bag_batches(1), BranchLossHandler()).run()


def test_branch_diversity_loss_uses_attention_after_masking():
    """Equal branches have similarity 1 without masking and less with it."""
    similarity = []
    for rate in (0.0, 0.5):
        net = acmil(torch.float32, mask_rate=rate)
        for p in (net.attend.score.weight, net.attend.score.bias):
            p.data = p.data[:1].expand_as(p).clone()
        torch.manual_seed(1)
        prior = AttentionPriorHandler(BranchDiversityLoss(), layer="mask_top", name="branch_diversity")
        trainer = make_trainer(net, bag_batches(1), prior)
        trainer.run()
        similarity.append(trainer.state.metrics["branch_diversity"])
    assert_close(similarity[0], 1.0)
    assert similarity[1] < 0.95
