"""Tests of fingerprint: the same for equal configurations in every process, different for others."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Lambda, Orientationd, RandFlip, ScaleIntensityRanged
from monai.utils import CommonKeys
from torch import nn

from monai_mil_ext.data import fingerprint, model_fingerprint
from monai_mil_ext.transforms import EncodeInstancesd, LoadScand, SliceBagd

OPTIONS = frozenset({CommonKeys.IMAGE, "b", "c", ("d", 1.5), None})


def pipeline(a_min=-1000, size=8, weight=0.5, last=nn.ReLU, factor=2):
    conv = nn.Conv2d(1, 2, 3)
    with torch.no_grad():
        conv.weight.fill_(weight)
        conv.bias.zero_()
    return Compose(
        [
            LoadScand("image"),
            ScaleIntensityRanged("image", a_min, 400, 0, 1, clip=True),
            SliceBagd("image", "axial", size),
            EncodeInstancesd("image", nn.Sequential(conv, nn.BatchNorm2d(2), last(), nn.Flatten())),
            Lambda(lambda x: x * factor),
        ]
    )


@pytest.mark.slow(buys="fingerprints do not depend on the hash seed")
@pytest.mark.parametrize("seed", ["1", "2"])
def test_fingerprint_is_the_same_in_other_processes(seed):
    code = f"from {__name__} import *; print(fingerprint(pipeline(), OPTIONS))"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == fingerprint(pipeline(), OPTIONS)
    assert len(result.stdout.strip()) == 64


def test_fingerprint_ignores_state_and_device():
    pipe, other = pipeline(), pipeline()
    other.set_random_state(7)
    other.transforms[3].encode.encoder.train(not other.transforms[3].encode.encoder.training)
    other.transforms[3].encode.encoder.register_forward_hook(print)
    assert fingerprint(pipe) == fingerprint(other)
    encoders = [EncodeInstancesd("image", nn.Flatten(), device=d) for d in ("cpu", "meta")]
    assert fingerprint(encoders[0]) == fingerprint(encoders[1])
    flips = [RandFlip(0.5).set_random_state(seed) for seed in (1, 2)]
    assert fingerprint(flips[0]) == fingerprint(flips[1])
    turn = Orientationd("image", "RAS")
    before = fingerprint(turn)
    turn({"image": MetaTensor(torch.zeros(1, 2, 2, 2))})
    assert fingerprint(turn) == before


def test_fingerprint_ignores_scripting():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    before = fingerprint(net)
    torch.jit.script(net)
    assert fingerprint(net) == before


@pytest.mark.parametrize(
    "change", [{"a_min": -999}, {"size": 9}, {"size": None}, {"weight": 0.5000001}, {"last": nn.GELU}, {"factor": 3}]
)
def test_fingerprint_depends_on_every_change(change):
    assert fingerprint(pipeline(**change)) != fingerprint(pipeline())


def double(x):
    return x * 2


def triple(x):
    return x * 3


DIFFERENT = [
    1, True, 1.0, "1", b"1", None, (), [], {}, set(), (1,), [1], {1}, ("ab", "c"), ("a", "bc"), {"a": 1}, {1: "a"},
    np.float32(1), np.ones(2), np.ones(2, int), np.ones((2, 1)), torch.ones(2), torch.ones(2, 1), torch.ones(0),
    torch.ones(2, dtype=torch.bfloat16), torch.float32, int, nn.ReLU, nn.ReLU(), nn.ReLU(inplace=True), double, triple,
    lambda x: x + 1, lambda x: x + 2, lambda x, y=1: x + y, lambda x, y=2: x + y, functools.partial(double),
    functools.partial(triple), CommonKeys.IMAGE, CommonKeys.LABEL, range(3), slice(3), np.array([double], object),
    print,
    nn.Linear(1, 1, bias=False).requires_grad_(False).forward, [[1], 1], [1, [1]], -0.0, 0.0, nn.Sequential(nn.ReLU()),
]  # fmt: skip


def test_fingerprint_distinguishes_values():
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)
    assert fingerprint(1, 2) != fingerprint((1, 2))
    assert fingerprint(type("N", (int,), {})(12)) != fingerprint(type("N1", (int,), {})(2))


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=2, max_size=6))
def test_fingerprint_ignores_the_order_of_a_mapping(options):
    turned = dict(reversed(options.items()))
    assert fingerprint(options) == fingerprint(turned)
    assert fingerprint(set(options)) == fingerprint(set(turned))
    assert fingerprint(list(options)) != fingerprint(list(turned))


def test_fingerprint_of_cycles_and_opaque_objects():
    ring = [1]
    ring.append(ring)
    other = [2]
    other.append(other)
    assert fingerprint(ring) != fingerprint(other)
    with pytest.raises(TypeError, match=r"must have attributes that distinguish them, got builtins\.object"):
        fingerprint({"a": object()})


def test_model_fingerprint_reads_weights_of_every_framework(tmp_path):
    net = nn.Linear(2, 1)
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    torch.save({"model": arrays, "train_conf": {}}, tmp_path / "model.pt")  # as NVIDIA FLARE
    torch.save({"model": {**arrays, "bias": arrays["bias"] + 1}, "train_conf": {}}, tmp_path / "b.pt")
    assert model_fingerprint(net, tmp_path / "model.pt") != model_fingerprint(net, tmp_path / "b.pt")


def test_model_fingerprint_names_missing_weights_without_their_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^`path` must be a file of weights that exists, got 'model\.pt'\.$"):
        model_fingerprint(nn.Linear(2, 1), tmp_path / "model.pt")
