"""WindowMIL in NumPy and float64, one bag at a time, window by window, without code of the package.

For class c of a bag of n instances, numbered from 0:

    s_i = w . h_i + v;   k(t) = A / (1 + exp((|t| - omega) / tau)), zero for |t| > reach
    W_j = sum_i k(i - j) s_i + log 1 / (1 + exp(-(min(j, n - 1 - j) - omega + 1/2) / tau))
    logit = log sum_j exp W_j - log n + b
    a_i = m_i / sum m,   m_i = sum_j p_j k(i - j),   p_j = exp W_j / sum_j exp W_j
"""

import numpy as np


def kernel(t, amplitude, half_width, softness, reach):
    return amplitude / (1 + np.exp((abs(t) - half_width) / softness)) if abs(t) <= reach else 0.0


def windows(bag, weight, offset, amplitude, half_width, softness, reach):
    """Compute the evidence (n,) of the windows around each instance, for one class."""
    n, s = len(bag), bag @ weight + offset
    evidence = []
    for j in range(n):
        within = min(j, n - 1 - j) - half_width + 0.5
        total = sum(kernel(i - j, amplitude, half_width, softness, reach) * s[i] for i in range(n))
        evidence.append(total - np.log1p(np.exp(-within / softness)))
    return np.array(evidence)


def window_mil(bag, weight, offset, amplitude, half_width, bias, softness=0.7, reach=30):
    """Compute logits (C,), scores (n, C) and attention (n, C) of a bag (n, F); ``weight`` is (C, F), others (C,)."""
    n, logits, scores, attention = len(bag), [], [], []
    for c in range(len(weight)):
        w = windows(bag, weight[c], offset[c], amplitude[c], half_width[c], softness, reach)
        total = np.log(np.exp(w - w.max()).sum()) + w.max()
        logits.append(total - np.log(n) + bias[c])
        p = np.exp(w - total)
        mass = [
            sum(p[j] * kernel(i - j, amplitude[c], half_width[c], softness, reach) for j in range(n)) for i in range(n)
        ]
        scores.append(w)
        attention.append(np.array(mass) / sum(mass))
    return np.array(logits), np.stack(scores, 1), np.stack(attention, 1)
