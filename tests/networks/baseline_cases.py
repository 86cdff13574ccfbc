"""Cases of baselines.json: weights and inputs by its recipe, and the outputs of the reference code."""

import json
import math
from pathlib import Path

import torch

DATA = json.loads((Path(__file__).parents[1] / "golden" / "baselines.json").read_text())
TOLERANCE = {"rtol": 1e-8, "atol": 1e-8}


def draw(count, a, b, c):
    """Return ``count`` values of the recipe's ``u(k; a, b, c)``."""
    k = torch.arange(count, dtype=torch.int64)
    return 2 * ((a * k * k + b * k + c) % 65521).double() / 65521 - 1


def published_weights(name):
    """Return the weights of a case by their published names."""
    weights = {}
    for row in DATA["cases"][name]["parameters"]:
        v = draw(math.prod(row["shape"]), 20011, 101, 7919 * (row["index"] + 1)).view(row["shape"])
        rules = {
            "matrix": lambda v=v: v * (6 / math.prod(v.shape[1:])) ** 0.5,
            "vector": lambda v=v: 0.3 * v,
            "norm_weight": lambda v=v: 1 + 0.3 * v,
            "zero": lambda v=v: 0 * v,
        }
        value = rules[row["rule"]]()
        assert abs(value.sum().item() - row["sum"]) < 1e-8
        weights[row["name"]] = value
    return weights


def published_bags(name):
    """Return the bags (B, N, F) and the mask (B, N) of a case, with NaN at padding."""
    config = DATA["cases"][name]["config"]
    shape = (config.get("B", 1), config["N"], config["F"])
    x = math.sqrt(3) * draw(math.prod(shape), 30011, 29, 17).view(shape)
    mask = torch.arange(shape[1]) < torch.tensor(config.get("sizes", [shape[1]] * shape[0])).unsqueeze(1)
    return x.where(mask.unsqueeze(-1), torch.nan), mask


def expected(name, *keys):
    """Return a value of a case as a tensor."""
    value = DATA["cases"][name]
    for key in keys:
        value = value[key]
    return torch.tensor(value, dtype=torch.float64)


def tapped(net, *taps):
    """Return a dictionary that a forward pass fills with the outputs of submodules."""
    seen = {}
    for tap in taps:
        net.get_submodule(tap).register_forward_hook(lambda *args, tap=tap: seen.update({tap: args[-1]}))
    return seen
