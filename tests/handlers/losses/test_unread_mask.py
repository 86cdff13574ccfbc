"""Tests that a term refuses a mask that the network got by another name than ``mask_argument``."""

import pytest
import torch
from monai.engines import PrepareBatchExtraInput
from torch import nn

from monai_mil_ext.handlers import AttentionAnchorHandler, AttentionPriorHandler, BranchLossHandler
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from tests.handlers.training import CLASSES, F, bag_batches, make_trainer
from tests.helpers import fill


class Scores(nn.Module):
    """Network of bags (B, N, F) with scores (B, N, 1)."""

    def __init__(self):
        super().__init__()
        self.attend, self.classify = nn.Linear(F, 1), nn.Linear(F, CLASSES)
        fill(self)

    def pool(self, x, mask=None):
        x = x.nan_to_num()
        scores = self.attend(x)
        if mask is not None:
            scores = scores.masked_fill(~mask.bool()[..., None], -torch.inf)
        return self.classify((scores.softmax(1) * x).sum(1))


class CalledValid(Scores):
    def forward(self, x, valid=None):
        return self.pool(x, valid)


class KeywordOnly(Scores):
    def forward(self, x, *, valid=None):
        return self.pool(x, valid)


class TakesAnything(Scores):
    def forward(self, x, **others):
        return self.pool(x, others["valid"])


class TakesOptions(Scores):
    def forward(self, x, options):
        return self.pool(x, options["valid"])


class CalledPaddingMask(Scores):
    """Network with the numbers 0 and 1 as mask."""

    def forward(self, x, attention_mask=None):
        return self.pool(x, attention_mask)


class HasBoth(Scores):
    def forward(self, x, mask=None, lesion=None):
        return self.pool(x, mask)


def train(network, names, handler, change=lambda mask: mask):
    batches = [batch | {"mask": change(batch["mask"])} for batch in bag_batches(2)]
    prepare = PrepareBatchExtraInput(dict.fromkeys(names, "mask") if isinstance(names, tuple) else names)
    trainer = make_trainer(network, batches, handler, prepare_batch=prepare)
    trainer.run()
    return trainer.state.metrics[handler.name]


def prior(**options):
    return AttentionPriorHandler(NormalGuidanceLoss(), layer="attend", **options)


def anchor(**options):
    return AttentionAnchorHandler(NSFKLLoss(), layer="attend", **options)


@pytest.mark.parametrize("make", [prior, anchor])
@pytest.mark.parametrize(
    ("network", "names", "name", "change"),
    [
        (CalledValid, ("valid",), "valid", lambda mask: mask),
        (CalledValid, "mask", "valid", lambda mask: mask),  # as a positional argument
        (CalledValid, ("valid",), "valid", lambda mask: mask | True),
        (CalledValid, ("valid",), "valid", lambda mask: mask[..., None].squeeze(-1)),
        (KeywordOnly, ("valid",), "valid", lambda mask: mask),
        (TakesAnything, ("valid",), "valid", lambda mask: mask),
        (CalledPaddingMask, ("attention_mask",), "attention_mask", lambda mask: mask.long()),
    ],
)
def test_term_refuses_a_mask_by_another_name(make, network, names, name, change):
    with pytest.raises(ValueError, match=rf"`mask_argument` must be .* got 'mask', while '{name}' looks like a mask"):
        train(network(), names, make(), change)


def test_term_refuses_a_mask_within_a_dictionary():
    batch = bag_batches(1)[0]
    inputs = batch["image"], batch["label"], ({"valid": batch["mask"]},), {}
    trainer = make_trainer(TakesOptions(), [batch], prior(), prepare_batch=lambda *_, **__: inputs)
    with pytest.raises(ValueError, match=r"`mask_argument` must be .*, while 'valid' looks like a mask"):
        trainer.run()


@pytest.mark.parametrize("make", [prior, anchor])
def test_term_takes_a_mask_by_its_name(make):
    named = train(CalledValid(), ("valid",), make(mask_argument="valid"))
    assert named == train(HasBoth(), ("mask",), make())
    assert named == train(HasBoth(), ("mask", "lesion"), make())  # a mask was found


def test_term_without_any_mask_is_not_refused():
    batches = [{key: value for key, value in batch.items() if key != "mask"} for batch in bag_batches(2)]
    make_trainer(CalledValid(), batches, prior()).run()


def test_branch_loss_reads_no_mask():
    class Branches(CalledValid):
        def forward(self, x, valid=None):
            return self.attend(x.nan_to_num()).transpose(1, 2)[..., :CLASSES].squeeze(1)

    handler = BranchLossHandler(layer="attend", loss=lambda logits, label: logits.square().mean())
    train(Branches(), ("valid",), handler)
