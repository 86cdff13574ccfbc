"""ACMIL in NumPy and float64, one bag at a time, from arXiv:2311.07125, without code of the package."""

import itertools
import math

import numpy as np


def weights(shapes):
    """Return parameters; entry j in C order of parameter i is sin(j (0.7 + 0.1 i)) / sqrt(last size)."""
    return [
        np.sin(np.arange(math.prod(shape)) * (0.7 + 0.1 * i)).reshape(shape) / math.sqrt(shape[-1])
        for i, shape in enumerate(shapes)
    ]


def shapes(features, classes, size, hidden, branches):
    attention = [(hidden, size), (hidden,), (hidden, size), (hidden,), (branches, hidden), (branches,)]
    heads = [(classes, size), (classes,)] * (branches + 1)
    return [(size, features), *attention, *heads]


def acmil(bag, params, branches, masked=()):
    """Compute logits, branch logits (K, C), embedding, scores and attention (n, K); ``masked`` has pairs."""
    project, value, value_bias, gate, gate_bias, score, score_bias = params[:7]
    head, branch_heads = params[7:9], params[9:]
    h = np.maximum(bag @ project.T, 0)
    hidden = np.tanh(h @ value.T + value_bias) / (1 + np.exp(-(h @ gate.T + gate_bias)))
    scores = hidden @ score.T + score_bias
    kept = scores.copy()
    for instance, branch in masked:
        kept[instance, branch] = -1e9
    e = np.exp(kept - kept.max(0))
    attention = e / e.sum(0)
    embedding = attention.mean(1) @ h
    branch_logits = [branch_heads[2 * k] @ (attention[:, k] @ h) + branch_heads[2 * k + 1] for k in range(branches)]
    return head[0] @ embedding + head[1], np.array(branch_logits), embedding, scores, attention


def cross_entropy(logits, label):
    return math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]


def diversity(attention):
    """Compute the mean cosine similarity of the pairs of columns of (n, K)."""
    pairs = list(itertools.combinations(attention.T, 2))
    return sum(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs) / len(pairs)
