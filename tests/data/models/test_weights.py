"""Tests of the reader of weights."""

import pytest
import torch

from monai_mil_ext.data import load_weights

WEIGHTS = {"a.weight": torch.arange(3.0), "a.bias": torch.ones(1)}
NUMPY = {name: value.numpy() for name, value in WEIGHTS.items()}
PREFIXED = {f"module._orig_mod.{name}": value for name, value in WEIGHTS.items()}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "train_conf": {"epochs": 3}},
        {"model": NUMPY, "train_conf": {}},
        {"network": WEIGHTS},
        {"state_dict": PREFIXED},
        PREFIXED,
    ],
    ids=["plain", "flare", "flare_arrays", "monai", "lightning", "ddp"],
)
def test_load_weights_finds_the_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "model.pt")
    loaded = load_weights(tmp_path / "model.pt")
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)


class Hostile:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [Hostile(), {"model": Hostile()}])
def test_load_weights_runs_no_pickle(content, tmp_path, capsys):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"`path` must be an undamaged file of weights, got 'model\.pt'"):
        load_weights(tmp_path / "model.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [{}, [1], {"epoch": 3}, torch.ones(2), {"model": {"a": "x"}}])
def test_load_weights_refuses_a_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"`path` must hold the state dict of a network, got 'model\.pt' without one"):
        load_weights(tmp_path / "model.pt")


def test_load_weights_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a file of weights that exists, got 'model\.pt'"):
        load_weights(tmp_path / "model.pt")
