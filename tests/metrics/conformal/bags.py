"""Bags of any size with a few positive instances, for tests of instance sets."""

import numpy as np
import torch


def random_bags(count, seed=0, lift=1.5, decimals=None, sizes=(5, 40)):
    """Return scores and labels of ``count`` bags; positive instances have higher scores by ``lift``."""
    rng = np.random.default_rng(seed)
    scores, labels = [], []
    for size, place in zip(rng.integers(*sizes, count), rng.random(count), strict=True):
        label = np.zeros(size, dtype=int)
        label[int(place * size) :][:3] = 1
        score = np.exp(rng.standard_normal(size) + lift * label)
        scores.append(torch.from_numpy(score / score.sum() if decimals is None else score.round(decimals) + 1))
        labels.append(torch.from_numpy(label))
    return scores, labels
