"""Published formulations of the methods: N x N softmax in float32, every instance projected for every token.

Weights have their published names. No code of the package is used, except that :py:func:`published_weights` reads the
names from a network of the package. Tests check that both agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

Weights = Mapping[str, Tensor]


def published_weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return copies of the parameters of ``net`` by their published names."""
    weights, copies = net.state_dict(), {}
    for name, ours in net.reference_names().items():
        key, index = (ours, ...) if isinstance(ours, str) else ours
        copies[name] = nn.Parameter(weights[key][index].detach().clone())
    return copies


def linear(p: Weights, name: str, x: Tensor) -> Tensor:
    """Apply the linear layer ``name``."""
    return functional.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def norm(p: Weights, name: str, x: Tensor) -> Tensor:
    """Apply the RMS norm ``name``."""
    return functional.rms_norm(x, [x.shape[-1]], p[f"{name}.weight"], 1e-6)


def additive(mask: Tensor | None) -> Tensor | float:
    """Return the term that masks scores (B, H, Q, N) for a mask (B, N)."""
    return 0.0 if mask is None else torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None, :]


def qgmil(p: Weights, x: Tensor, mask: Tensor | None = None, dropout: float = 0.0, heads: int = 8) -> Tensor:
    """Compute logits (B, C) of the preset ``qgmil_base``: headwise gate, SwiGLU, attention pooling, any depth."""
    h = functional.dropout(norm(p, "input_proj.1", linear(p, "input_proj.0", x)), dropout)
    for i in range(sum(name.endswith("q_norm.weight") for name in p)):
        name = f"layers.{i}"
        attended = qgmil_attention(p, f"{name}.self_attn", norm(p, f"{name}.input_layernorm", h), mask, heads)
        h = h + functional.dropout(attended, dropout)
        n = norm(p, f"{name}.post_attention_layernorm", h)
        hidden = functional.silu(linear(p, f"{name}.mlp.gate_proj", n)) * linear(p, f"{name}.mlp.up_proj", n)
        h = h + functional.dropout(linear(p, f"{name}.mlp.down_proj", hidden), dropout)
    z = norm(p, "pooling.norm", norm(p, "final_norm", h))
    gated = torch.tanh(linear(p, "pooling.attention_V.0", z)) * torch.sigmoid(linear(p, "pooling.attention_U.0", z))
    scores = linear(p, "pooling.attention_weights", gated)[..., 0]
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    pooled = (functional.softmax(scores, 1, dtype=torch.float32).unsqueeze(1) @ z)[:, 0]
    return linear(p, "classifier.3", functional.dropout(functional.relu(linear(p, "classifier.0", pooled)), dropout))


def qgmil_attention(p: Weights, name: str, u: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """Compute gated attention among all tokens, with the whole matrix in memory."""
    size = p[f"{name}.q_norm.weight"].shape[0]
    query_and_gate = linear(p, f"{name}.q_proj", u).unflatten(-1, [heads, size + 1])
    q = norm(p, f"{name}.q_norm", query_and_gate[..., :size]).transpose(1, 2)
    k = norm(p, f"{name}.k_norm", linear(p, f"{name}.k_proj", u).unflatten(-1, [heads, size])).transpose(1, 2)
    v = linear(p, f"{name}.v_proj", u).unflatten(-1, [heads, size]).transpose(1, 2)
    scores = torch.matmul(q, k.transpose(2, 3)) * size**-0.5
    if mask is not None:
        scores = scores + additive(mask)
    attention = functional.softmax(scores, -1, dtype=torch.float32)
    attended = torch.matmul(attention, v).transpose(1, 2) * torch.sigmoid(query_and_gate[..., size:])
    return linear(p, f"{name}.o_proj", attended.flatten(2))


def asmil(
    p: Weights, x: Tensor, mask: Tensor | None = None, dropout: float = 0.0, drop: float = 0.0, heads: int = 8
) -> tuple[Tensor, Tensor]:
    """Compute logits (B, C) and scores (B, H, T, N) of T tokens with separate weights; another token pools them."""
    h = functional.relu(linear(p, "dimreduction.fc1", x))
    count = p["q"].shape[1]
    names = [f"sub_attention.{i}" for i in range(count)]
    outputs, scores = zip(*(attend(p, names[i], p["q"][0, i], h, mask, heads) for i in range(count)), strict=True)
    tokens = layer_norms(p, names, functional.dropout(torch.stack(outputs).transpose(0, 1), dropout))
    kept = None
    if drop:
        draw = torch.rand(x.shape[0], count)
        kept = (draw >= drop) | (draw == draw.amax(1, keepdim=True))
    bag, _ = attend(p, "bag_attention", p["cls"][0, 0], tokens, kept, heads)
    bag = layer_norms(p, ["bag_attention"], functional.dropout(bag.unsqueeze(1), dropout))[:, 0]
    return linear(p, "Slide_classifier.fc", bag), torch.stack(scores, 2)


def attend(p: Weights, name: str, query: Tensor, h: Tensor, mask: Tensor | None, heads: int) -> tuple[Tensor, Tensor]:
    """Compute the output (B, E) and scores (B, H, N) of a token for instances (B, N, E), with keys and values."""
    size = h.shape[2] // heads
    q = linear(p, f"{name}.q_proj", query).view(heads, 1, size)
    k = linear(p, f"{name}.k_proj", h).unflatten(-1, [heads, size]).transpose(1, 2)
    v = linear(p, f"{name}.v_proj", h).unflatten(-1, [heads, size]).transpose(1, 2)
    scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(size)
    attention = functional.softmax(scores + additive(mask), -1, dtype=torch.float32)
    return linear(p, f"{name}.out_proj", torch.matmul(attention, v).transpose(1, 2).flatten(1)), scores[:, :, 0]


def layer_norms(p: Weights, names: list[str], tokens: Tensor) -> Tensor:
    """Apply a separate layer norm to each of T tokens (B, T, E)."""
    weight, bias = (torch.stack([p[f"{name}.layer_norm.{kind}"] for name in names]) for kind in ("weight", "bias"))
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * weight + bias


def nsf_kl(scores: Tensor, anchor_scores: Tensor) -> Tensor:
    """Compute the divergence of attention from the normalized sigmoid of anchor scores (B, H, T, N), summed over N."""
    sigmoid = torch.sigmoid(anchor_scores)
    target = sigmoid / sigmoid.sum(-1, keepdim=True)
    return (target * (target.log() - functional.log_softmax(scores, -1))).sum(-1).mean()
