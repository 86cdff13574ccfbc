"""Small networks for tests of handlers, and the loss of ACMIL by its equations."""

import itertools

import torch
from monai.networks.nets import MILModel
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets import ACMIL
from tests.handlers.training import CLASSES, F
from tests.helpers import fill

NUM_BRANCHES = 3


def mil_model(mode):
    """Return MONAI's MILModel for batches (B, N, F, 1, 1), with or without a transformer."""
    size = {"att": F, "att_trans": 8}[mode]
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(F, size))
    return fill(MILModel(CLASSES, mode, backbone=backbone, backbone_num_features=size, trans_blocks=1))


def acmil(dtype=torch.float64, **options):
    """Return a small ACMIL."""
    net = ACMIL(F, CLASSES, hidden_size=4, attention_size=5, num_branches=NUM_BRANCHES, num_instances=4, **options)
    return fill(net).to(dtype)


def acmil_terms(net, batch):
    """Return the loss of bags, that of branches and the similarity of branches, each from its equation."""
    mask, label = batch["mask"], batch["label"]
    h = net.embed(batch["image"].masked_fill(~mask[..., None], 0))
    attention = masked_softmax(net.mask_top(net.attend(h), mask), mask)
    pooled = torch.stack([(attention[..., k, None] * h).sum(1) for k in range(NUM_BRANCHES)])
    branch = sum(cross_entropy(net.classify_branch[k](pooled[k]), label) for k in range(NUM_BRANCHES))
    pairs = list(itertools.combinations(attention.unbind(2), 2))
    diversity = sum(cosine_similarity(a, b, dim=1).mean() for a, b in pairs) / len(pairs)
    return cross_entropy(net.classify(pooled.mean(0)), label), branch / NUM_BRANCHES, diversity
