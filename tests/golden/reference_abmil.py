"""ABMIL in NumPy and float64, from the equations of arXiv:1802.04712, without code of the package; writes abmil.json.

Run ``python tests/golden/reference_abmil.py``.
"""

import json
from pathlib import Path

import numpy as np

F, C, L = 5, 2, 3  # sizes of an instance, of the logits and of the hidden layer of the attention
CASES = {
    "plain": {"gated": False, "sizes": [4]},
    "gated": {"gated": True, "sizes": [4]},
    "gated-projected": {"gated": True, "hidden_size": 4, "sizes": [4]},
    "plain-projected-masked": {"gated": False, "hidden_size": 4, "sizes": [2, 4, 0]},
    "gated-projected-heads-masked": {"gated": True, "hidden_size": 4, "num_heads": 2, "sizes": [3, 1, 4]},
    "plain-per-class": {"gated": False, "per_class": True, "sizes": [4]},
    "gated-projected-per-class-masked": {"gated": True, "hidden_size": 4, "per_class": True, "sizes": [3, 1, 4]},
}


def weights(shapes):
    """Return parameters; entry j in C order of parameter i is sin(j (0.7 + 0.1 i)) / sqrt(last size)."""
    return [
        np.sin(np.arange(np.prod(shape)) * (0.7 + 0.1 * i)).reshape(shape) / np.sqrt(shape[-1])
        for i, shape in enumerate(shapes)
    ]


def classify(bag, gated, hidden_size=None, num_heads=1, per_class=False):
    """Compute logits, embedding, and scores and attention of each instance for one bag (n, F) without padding.

    Per class: logit c is w_c . z_c + b_c, where z_c is pooled by attention row c (the multi-branch form of CLAM).
    """
    size, num_heads = hidden_size or F, C if per_class else num_heads
    shapes = [(size, F)] if hidden_size else []
    shapes += [(L, size), (L,)] * (2 if gated else 1) + [(num_heads, L), (num_heads,)]
    shapes += [(C, size if per_class else num_heads * size), (C,)]
    params = weights(shapes)
    project = params.pop(0) if hidden_size else None
    scores, h = [], []
    for x in bag:
        h.append(x if project is None else np.maximum(project @ x, 0))
        hidden = np.tanh(params[0] @ h[-1] + params[1])
        if gated:
            hidden = hidden / (1 + np.exp(-(params[2] @ h[-1] + params[3])))
        scores.append(params[-4] @ hidden + params[-3])
    embedding, attention = [], np.zeros((len(bag), num_heads))
    for k in range(num_heads):
        total = sum(np.exp(s[k]) for s in scores)
        attention[:, k] = [np.exp(s[k]) / total for s in scores]
        embedding.append(sum((a * v for a, v in zip(attention[:, k], h, strict=True)), np.zeros(size)))
    if per_class:
        logits = [params[-2][c] @ embedding[c] + params[-1][c] for c in range(C)]
        return np.array(logits), np.concatenate(embedding), scores, attention
    embedding = np.concatenate(embedding)
    return params[-2] @ embedding + params[-1], embedding, scores, attention


def golden():
    """Return all cases with their batches; rows beyond the size of a bag are padding."""
    out = {}
    for name, case in CASES.items():
        config = {key: value for key, value in case.items() if key != "sizes"}
        sizes = case["sizes"]
        x = np.cos(np.arange(len(sizes) * 4 * F) * 0.37).reshape(len(sizes), 4, F)
        bags = [classify(bag[:n], **config) for bag, n in zip(x, sizes, strict=True)]
        out[name] = {
            "config": {"in_features": F, "num_classes": C, "attention_size": L} | config,
            "sizes": sizes,
            "x": x.tolist(),
            "logits": [logits.tolist() for logits, _, _, _ in bags],
            "embedding": [embedding.tolist() for _, embedding, _, _ in bags],
            "scores": [np.array(scores).tolist() for _, _, scores, _ in bags],
            "attention": [attention.tolist() for _, _, _, attention in bags],
        }
    return out


if __name__ == "__main__":
    Path(__file__).with_name("abmil.json").write_text(json.dumps(golden(), indent=1) + "\n")
