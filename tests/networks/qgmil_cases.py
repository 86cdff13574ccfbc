"""Tiny QG-MIL networks with known weights, and their reference outputs."""

import itertools
import math

import numpy as np
import torch

from monai_mil_ext.networks.nets import QGMIL, QGMILBlock
from tests.golden.reference_qgmil import qgmil

F, C, E = 5, 3, 8
FACTORS = {
    "norm": ("rms", "layer"),
    "qk_norm": (True, False),
    "gate": ("none", "headwise", "elementwise"),
    "ffn": ("swiglu", "mlp"),
}
FACTORIAL = [dict(zip(FACTORS, cell, strict=True)) for cell in itertools.product(*FACTORS.values())]
OTHERS = [
    {"activation": "gelu"},
    {"activation": "relu", "ffn": "mlp"},
    {"num_heads": 4, "num_kv_heads": 2},
    {"num_heads": 4, "num_kv_heads": 1, "gate": "elementwise"},
    {"num_heads": 6, "num_kv_heads": 3, "gate": "none", "head_size": 3, "ffn_size": 5},
]


def known(net):
    """Set the weights by the recipe of qgmil.json for the published names, and return the network in eval mode."""
    weights = net.state_dict(keep_vars=True)
    with torch.no_grad():
        for j, (name, ours) in enumerate(net.reference_names().items()):
            p = weights[ours]
            v = torch.sin(0.1 + 0.7 * torch.arange(p.numel(), dtype=torch.float64) + j).view_as(p)
            norm = name.endswith("weight") and p.ndim == 1
            p.copy_(1 + 0.1 * v if norm else 0.05 * v if p.ndim == 1 else v * (2 / p.shape[1]) ** 0.5)
    return net.eval()


def tiny(block=None, dtype=torch.float64, **config):
    return known(QGMIL(F, C, hidden_size=E, block=QGMILBlock(**{"num_heads": 2} | (block or {})), **config).to(dtype))


def batch(dtype=torch.float64):
    """Return bags of 6, 4 and 1 instances, with NaN at padding."""
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    x = torch.sin(0.37 * torch.arange(3 * 6 * F, dtype=torch.float64)).view(3, 6, F)
    return x.where(mask[..., None], torch.nan).to(dtype), mask


def reference(net, block, bag):
    """Compute the reference output for one bag (n, F) without padding."""
    block = QGMILBlock(**{"num_heads": 2} | (block or {}))
    config = {
        "num_layers": len(net.layers),
        "heads": block.num_heads,
        "kv_heads": block.num_kv_heads or block.num_heads,
        "head_size": block.head_size or E // block.num_heads,
        "pooling": net.pooling,
    } | {name: getattr(block, name) for name in (*FACTORS, "activation")}
    weights = net.state_dict()
    p = {name: weights[ours].double().numpy() for name, ours in net.reference_names().items()}
    return qgmil(p, np.asarray(bag, dtype=float), config)


def plain_attention(query, key, value, mask=None, enable_gqa=False):
    """Compute scaled_dot_product_attention step by step, with every key repeated."""
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ value
