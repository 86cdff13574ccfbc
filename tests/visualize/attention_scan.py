"""Attention over the slices of a small scan."""

import numpy as np


def scan(n=9):
    attention = np.arange(1.0, n + 1)
    reference = np.zeros((n, 16, 16), dtype=bool)
    reference[n // 2 :, 4:9, 4:9] = True
    return attention / attention.sum(), np.arange(n) * 5.0 - 20, np.random.default_rng(0).random((n, 16, 16)), reference
