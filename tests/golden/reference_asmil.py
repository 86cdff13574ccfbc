"""Writes asmil.json: ASMIL in NumPy and float64, with every instance projected for every token and head.

From the equations of arXiv:2603.06658 (model, normalized sigmoid, KL); without code of the package.
Run ``python tests/golden/reference_asmil.py``.
"""

import json
from math import erf
from pathlib import Path

import numpy as np

F, C, E, H = 5, 2, 4, 2  # sizes of an instance, of the logits and of a projected instance, number of heads
CASES = {
    "cross": {"num_tokens": 3, "sizes": [4]},
    "cross-masked": {"num_tokens": 2, "sizes": [2, 4, 1]},
    "cross-one-head": {"num_tokens": 2, "num_heads": 1, "sizes": [3, 4]},
    "prenorm": {"num_tokens": 3, "block": "prenorm", "sizes": [4]},
    "prenorm-masked": {"num_tokens": 2, "block": "prenorm", "sizes": [3, 1, 4]},
}


def weights(shapes):
    """Return parameters; entry j in C order of parameter i is sin(j (0.7 + 0.1 i)) / sqrt(last size)."""
    return [
        np.sin(np.arange(np.prod(shape)) * (0.7 + 0.1 * i)).reshape(shape) / np.sqrt(shape[-1])
        for i, shape in enumerate(shapes)
    ]


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / e.sum()


def layer_norm(v, weight, bias):
    return (v - v.mean()) / np.sqrt(v.var() + 1e-6) * weight + bias


def gelu(v):
    return np.array([0.5 * x * (1 + erf(x / np.sqrt(2))) for x in v])


def attend(query, rows, w, heads):
    """Compute output (E,), scores (H, n) and weights (H, n) of a query on n rows; ``w`` is W_q, b_q, ..., W_o, b_o."""
    d = E // heads
    w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o = w
    q = w_q @ query + b_q
    keys, values = [w_k @ h + b_k for h in rows], [w_v @ h + b_v for h in rows]
    scores, weights_, parts = [], [], []
    for j in range(heads):
        columns = slice(j * d, (j + 1) * d)
        scores.append([q[columns] @ k[columns] / np.sqrt(d) for k in keys])
        weights_.append(softmax(np.array(scores[-1])))
        parts.append(sum(a * v[columns] for a, v in zip(weights_[-1], values, strict=True)))
    return w_o @ np.concatenate(parts) + b_o, scores, weights_


def cross_block(queries, rows, params, heads):
    """Apply attention with separate weights for each query and a layer norm, without residual."""
    norm_weight, norm_bias, *w = params
    out, scores, weights_ = [], [], []
    for i, query in enumerate(queries):
        o, z, a = attend(query, rows, [p[i] for p in w], heads)
        out.append(layer_norm(o, norm_weight[i], norm_bias[i]))
        scores.append(z)
        weights_.append(a)
    return out, scores, weights_


def prenorm_block(queries, rows, params, heads):
    """Apply one transformer layer that all queries share: f = q + MHA(LN1 q, LN1 h), f + W2 GELU(W1 LN2 f)."""
    n1, n1_bias, *w, n2, n2_bias, w1, b1, w2, b2 = params
    rows = [layer_norm(h, n1, n1_bias) for h in rows]
    out, scores, weights_ = [], [], []
    for query in queries:
        o, z, a = attend(layer_norm(query, n1, n1_bias), rows, [p[0] for p in w], heads)
        f = query + o
        out.append(f + w2 @ gelu(w1 @ layer_norm(f, n2, n2_bias) + b1) + b2)
        scores.append(z)
        weights_.append(a)
    return out, scores, weights_


def shapes_of(block, tokens):
    """Return the shapes of the parameters of one block, in order."""
    if block == "cross":
        return [(tokens, E)] * 2 + [(tokens, E, E), (tokens, E)] * 4
    return [(E,)] * 2 + [(1, E, E), (1, E)] * 4 + [(E,)] * 2 + [(4 * E, E), (4 * E,), (E, 4 * E), (E,)]


def classify(bag, num_tokens, num_heads=H, block="cross"):
    """Compute logits, embedding, scores (n, H T), head-major, and attention (n, 1) of one bag (n, F)."""
    first, second = shapes_of(block, num_tokens), shapes_of(block, 1)
    params = weights([(num_tokens, E), (1, E), (E, F), *first, *second, (C, E), (C,)])
    tokens, cls, project, params = params[0], params[1], params[2], params[3:]
    run = cross_block if block == "cross" else prenorm_block
    h = [np.maximum(project @ x, 0) for x in bag]
    f, scores, attention = run(tokens, h, params[: len(first)], num_heads)
    (embedding,), _, _ = run(cls, f, params[len(first) : -2], num_heads)
    logits = params[-2] @ embedding + params[-1]
    scores = np.array(scores).transpose(2, 1, 0).reshape(len(bag), -1)  # (T, H, n) -> (n, H T)
    return logits, embedding, scores, np.array(attention).mean((0, 1))[:, None]


def normalized_sigmoid(z, temperature=1.0):
    s = 1 / (1 + np.exp(-np.asarray(z) / temperature))
    return s / s.sum()


def anchor_loss(scores, anchor_scores, temperature=1.0):
    """Compute the column mean of KL(NSF(z') || softmax(z)) and its gradient (alpha - alpha') / S of a bag (n, S)."""
    value, gradient = 0.0, np.zeros_like(scores)
    for s in range(scores.shape[1]):
        target, alpha = normalized_sigmoid(anchor_scores[:, s], temperature), softmax(scores[:, s])
        value += sum(t * (np.log(t) - np.log(a)) for t, a in zip(target, alpha, strict=True)) / scores.shape[1]
        gradient[:, s] = (alpha - target) / scores.shape[1]
    return value, gradient


def golden():
    """Return all cases with their batches (rows beyond the size of a bag are padding) and values of the anchor loss."""
    out = {}
    for name, case in CASES.items():
        config = {key: value for key, value in case.items() if key != "sizes"}
        sizes = case["sizes"]
        x = np.cos(np.arange(len(sizes) * 4 * F) * 0.37).reshape(len(sizes), 4, F)
        bags = [classify(bag[:n], **config) for bag, n in zip(x, sizes, strict=True)]
        out[name] = {
            "config": {"in_features": F, "num_classes": C, "hidden_size": E, "num_heads": H} | config,
            "sizes": sizes,
            "x": x.tolist(),
        }
        for i, part in enumerate(("logits", "embedding", "scores", "attention")):
            out[name][part] = [bag[i].tolist() for bag in bags]
    scores, anchor_scores = (np.sin(np.arange(18).reshape(6, 3) * step) * 4 for step in (0.9, 1.7))
    losses = []
    for temperature in (1.0, 0.5):
        value, gradient = anchor_loss(scores, anchor_scores, temperature)
        losses.append({"temperature": temperature, "value": value, "gradient": gradient.tolist()})
    offsets = {str(o): normalized_sigmoid(np.array([3, 2, 1, 0, -1, -2]) + o).tolist() for o in (-10, 0, 10)}
    return {
        "nets": out,
        "loss": {"scores": scores.tolist(), "anchor_scores": anchor_scores.tolist(), "cases": losses},
        "offsets": offsets,
    }


if __name__ == "__main__":
    Path(__file__).with_name("asmil.json").write_text(json.dumps(golden(), indent=1) + "\n")
