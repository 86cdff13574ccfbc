"""MarkovMIL in NumPy and float64, one bag at a time, by listing every set of runs, without code of the package.

A set of runs is a row of zeros and ones that is not all zero: its runs are the stretches of ones. For class c:

    s_i = A (w . h_i + v)
    weight of a set = product over its runs of rate (1 - stay) stay^(length - 1) exp(sum of s_i in the run)
    logit = log of the sum of weights - the same with all s_i = 0 + b
    p_i = share of the weight of the sets in which i is in a run;   a_i = p_i / sum p
"""

from itertools import groupby, product

import numpy as np


def set_weight(inside, s, rate, stay):
    """Compute the weight of the set of runs that ``inside`` marks in evidence ``s``."""
    lengths = [len(list(group)) for one, group in groupby(inside) if one]
    prior = np.prod([rate * (1 - stay) * stay ** (d - 1) for d in lengths])
    return prior * np.exp(np.dot(inside, s))


def one_class(s, rate, stay):
    """Return the log-weight of all sets of runs and the posterior (n,) of instances with evidence ``s`` (n,)."""
    sets = [inside for inside in product([0, 1], repeat=len(s)) if any(inside)]
    weights = np.array([set_weight(inside, s, rate, stay) for inside in sets])
    return np.log(weights.sum()), weights @ np.array(sets) / weights.sum()


def markov_mil(bag, weight, offset, height, rate, stay, bias):
    """Compute logits (C,) and posteriors (n, C) of a bag (n, F); ``weight`` is (C, F), the others (C,)."""
    logits, posteriors = [], []
    for c in range(len(weight)):
        s = height[c] * (bag @ weight[c] + offset[c])
        total, posterior = one_class(s, rate[c], stay[c])
        prior, _ = one_class(np.zeros_like(s), rate[c], stay[c])
        logits.append(total - prior + bias[c])
        posteriors.append(posterior)
    return np.array(logits), np.stack(posteriors, 1)
