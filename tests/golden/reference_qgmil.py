"""QG-MIL in NumPy and float64, one bag and one head at a time, from the equations, without code of the package.

Parameters go by their published names. ``python tests/golden/reference_qgmil.py`` measures this file against
qgmil.json, which holds the output of the authors' code in float32 (MIT license, see "source" there).
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

PUBLISHED = Path(__file__).with_name("qgmil.json")
COARSE = {"input_proj.1", "final_norm", "pooling.norm"}  # LayerNorms with eps 1e-5 and not 1e-6
ACTIVATIONS = {
    "silu": lambda v: v / (1 + np.exp(-v)),
    "gelu": lambda v: v * np.vectorize(lambda t: (1 + math.erf(t / math.sqrt(2))) / 2, otypes=[float])(v),
    "relu": lambda v: np.maximum(v, 0),
}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def softmax(v):
    e = np.exp(v - v.max()) if v.size else v
    return e / e.sum()


def normalize(p, name, kind, v):
    """Normalize a row ``v`` with the named layer."""
    if kind == "rms":
        return v / np.sqrt(np.mean(v**2) + 1e-6) * p[f"{name}.weight"]
    eps = 1e-5 if name in COARSE else 1e-6
    centered = v - v.mean()
    return centered / np.sqrt(np.mean(centered**2) + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def attend(p, name, tokens, config):
    """Compute the output of the heads for all tokens (T, H d), and P (H, T, T)."""
    count, gate, norm = len(tokens), config["gate"], config["norm"]
    num_heads, num_kv_heads, d = config["heads"], config["kv_heads"], config["head_size"]
    group = num_heads // num_kv_heads
    gates = {"none": 0, "headwise": group, "elementwise": group * d}[gate]
    rows = group * d + gates  # of W_q per key head
    wq, wk, wv = (p[f"{name}.{part}_proj.weight"] for part in "qkv")
    assert wq.shape[0] == num_kv_heads * rows
    out, weights = np.zeros((count, num_heads * d)), np.zeros((num_heads, count, count))
    for head in range(num_heads):
        r, t = divmod(head, group)
        columns = slice(r * rows + t * d, r * rows + (t + 1) * d)
        q = [wq[columns] @ u for u in tokens]
        k = [wk[r * d : (r + 1) * d] @ u for u in tokens]
        v = [wv[r * d : (r + 1) * d] @ u for u in tokens]
        if config["qk_norm"]:
            q = [normalize(p, f"{name}.q_norm", norm, row) for row in q]
            k = [normalize(p, f"{name}.k_norm", norm, row) for row in k]
        for i in range(count):
            weights[head, i] = softmax(np.array([q[i] @ k[j] for j in range(count)]) / math.sqrt(d))
            o = sum((weights[head, i, j] * v[j] for j in range(count)), np.zeros(d))
            if gate == "headwise":
                o = o * sigmoid(wq[r * rows + group * d + t] @ tokens[i])
            if gate == "elementwise":
                start = r * rows + (group + t) * d
                o = o * sigmoid(wq[start : start + d] @ tokens[i])
            out[i, head * d : (head + 1) * d] = o
    return out, weights


def feed(p, name, n, ffn, activation):
    act = ACTIVATIONS[activation]
    if ffn == "swiglu":
        hidden = act(p[f"{name}.gate_proj.weight"] @ n) * (p[f"{name}.up_proj.weight"] @ n)
        return p[f"{name}.down_proj.weight"] @ hidden
    hidden = act(p[f"{name}.fc1.weight"] @ n + p[f"{name}.fc1.bias"])
    return p[f"{name}.fc2.weight"] @ hidden + p[f"{name}.fc2.bias"]


def pool(p, h, pooling, norm, weights, scores):
    """Compute embedding, attention (n, A) and scores (n, S) or None; those of the class token are passed in."""
    if pooling == "cls":
        return h[0], weights[:, 0, 1:].T, scores
    n, size = h.shape
    if pooling == "mean":
        return h.sum(0) / max(n, 1), np.full((n, 1), 1 / max(n, 1)), None
    if pooling == "max":
        first = h.argmax(0) if n else np.zeros(0, int)
        fractions = np.array([[np.sum(first == i) / size] for i in range(n)]).reshape(n, 1)
        return (h.max(0) if n else np.zeros(size)), fractions, None
    z = np.array([normalize(p, "pooling.norm", norm, row) for row in h]).reshape(n, size)
    w, b = p["pooling.attention_weights.weight"], p["pooling.attention_weights.bias"]
    scores = np.zeros((n, 1))
    for i, row in enumerate(z):
        tanh = np.tanh(p["pooling.attention_V.0.weight"] @ row + p["pooling.attention_V.0.bias"])
        gate = sigmoid(p["pooling.attention_U.0.weight"] @ row + p["pooling.attention_U.0.bias"])
        scores[i] = w @ (tanh * gate) + b
    a = softmax(scores[:, 0])
    return sum((a[i] * z[i] for i in range(n)), np.zeros(size)), a[:, None], scores


def qgmil(p, bag, config):
    """Compute all outputs for one bag (n, F) without padding or dropout; ``layers`` has P (H, T, T) of each layer."""
    norm, pooling = config["norm"], config["pooling"]
    h = [normalize(p, "input_proj.1", norm, p["input_proj.0.weight"] @ x + p["input_proj.0.bias"]) for x in bag]
    h = [p["cls_token"].ravel(), *h] if pooling == "cls" else h
    h = np.array(h).reshape(-1, len(p["final_norm.weight"]))
    layers, class_scores = [], None
    for i in range(config["num_layers"]):
        name = f"layers.{i}"
        u = np.array([normalize(p, f"{name}.input_layernorm", norm, row) for row in h]).reshape(h.shape)
        out, weights = attend(p, f"{name}.self_attn", u, config)
        h = h + out @ p[f"{name}.self_attn.o_proj.weight"].T
        if pooling == "cls":  # softmax determines the scores up to a constant per head
            class_scores = np.log(weights[:, 0, 1:] / weights[:, 0, :1]).T
        n = [normalize(p, f"{name}.post_attention_layernorm", norm, row) for row in h]
        h = h + np.array([feed(p, f"{name}.mlp", row, config["ffn"], config["activation"]) for row in n]).reshape(
            h.shape
        )
        layers.append(weights)
    h = np.array([normalize(p, "final_norm", norm, row) for row in h]).reshape(h.shape)
    embedding, attention, scores = pool(p, h, pooling, norm, layers[-1], class_scores)
    hidden = np.maximum(p["classifier.0.weight"] @ embedding + p["classifier.0.bias"], 0)
    logits = p["classifier.3.weight"] @ hidden + p["classifier.3.bias"]
    return {"logits": logits, "embedding": embedding, "attention": attention, "scores": scores, "layers": layers}


def published_weights(case):
    """Return the parameters of a case of qgmil.json by its recipe, rounded to float32."""
    p = {}
    for row in case["parameters"]:
        v = np.sin(0.1 + 0.7 * np.arange(np.prod(row["shape"])) + row["index"]).reshape(row["shape"])
        rule = {"norm_weight": 1 + 0.1 * v, "vector": 0.05 * v, "matrix": v * math.sqrt(2 / row["shape"][-1])}
        p[row["name"]] = rule[row["rule"]].astype(np.float32)
    return p


def published_input():
    """Return the two bags of qgmil.json and their mask."""
    i = np.arange(2 * 17 * 1024)
    x = (np.sin(0.37 * i) + 0.5 * np.cos(0.11 * i)).reshape(2, 17, 1024).astype(np.float32)
    return x, np.arange(17) < np.array([[17], [11]])


def settings(config):
    """Return the settings of a case of qgmil.json by our names."""
    ours = {"num_layers": "layers", "heads": "heads", "kv_heads": "kv_heads", "head_size": "head_dim"}
    same = ("norm", "qk_norm", "gate", "ffn", "activation", "pooling")
    return {name: config[theirs] for name, theirs in (ours | {name: name for name in same}).items()}


def deviations(case):
    """Return the deviations from the output of the authors' code: logits, pool attention, diagonal of P."""
    p, config = {key: value.astype(float) for key, value in published_weights(case).items()}, settings(case["config"])
    x, mask = published_input()
    full = [qgmil(p, bag.astype(float), config) for bag in x]
    short = qgmil(p, x[1, mask[1]].astype(float), config)
    diagonal = np.mean([np.diagonal(out["layers"][0], axis1=1, axis2=2) for out in full])
    return [
        *(np.abs(out["logits"] - logits).max() for out, logits in zip(full, case["logits"], strict=True)),
        np.abs(short["logits"] - case["logits_masked"][1]).max(),
        np.abs(short["attention"][:3, 0] - case["pool_attention_masked_row1_first3"]).max(),
        abs(diagonal - case["layer0_attention_diagonal_mean_unmasked"]),
    ]


if __name__ == "__main__":
    for name, case in json.loads(PUBLISHED.read_text())["cases"].items():
        sys.stdout.write(f"{name} {max(deviations(case)):.1e}\n")
