"""Smoothing and SmAP in NumPy and float64, one bag at a time, from arXiv:2410.03276, without code of the package.

SmTP is ``reference_transmil.sequence`` with ``smooth`` from here.
"""

import math

import numpy as np


def weights(shapes):
    """Return parameters; entry j in C order of parameter i is sin(j (0.7 + 0.1 i)) / sqrt(last size)."""
    return [
        np.sin(np.arange(math.prod(shape)) * (0.7 + 0.1 * i)).reshape(shape) / math.sqrt(shape[-1])
        for i, shape in enumerate(shapes)
    ]


def chain(n, neighbors=1, symmetric=False):
    """Return the normalized adjacency of a chain; a node without neighbors is its own neighbor and does not change."""
    a = np.array([[float(0 < abs(i - j) <= neighbors) for j in range(n)] for i in range(n)]).reshape(n, n)
    degree = a.sum(1)
    if n == 1:
        return np.eye(1)
    return a / np.sqrt(np.outer(degree, degree)) if symmetric else a / degree[:, None]


def smooth(u, alpha, steps=10, neighbors=1, symmetric=False):
    a, g = chain(len(u), neighbors, symmetric), u
    for _ in range(steps):
        g = alpha * a @ g + (1 - alpha) * u
    return g


def smooth_exactly(u, alpha, symmetric=False):
    return (1 - alpha) * np.linalg.inv(np.eye(len(u)) - alpha * chain(len(u), 1, symmetric)) @ u


def spectral(weight):
    return weight / np.linalg.svd(weight, compute_uv=False)[0]


def smap_shapes(features, classes, size):
    return [(size, features), (size,), (1, size), (1,), (classes, features), (classes,)]


def smap(bag, params, alpha, place):
    """Compute logits, embedding, scores and attention (n, 1) of a bag (n, F)."""
    value, value_bias, score, score_bias, head, head_bias = params
    if place == "early":
        bag, value = smooth(bag, alpha), spectral(value)
    hidden = np.tanh(bag @ value.T + value_bias)
    if place == "mid":
        hidden = smooth(hidden, alpha)
    if place in ("early", "mid"):
        score = spectral(score)
    scores = hidden @ score.T + score_bias
    if place == "late":
        scores = smooth(scores, alpha)
    e = np.exp(scores - scores.max())
    attention = e / e.sum()
    embedding = (attention * bag).sum(0)
    return head @ embedding + head_bias, embedding, scores, attention
