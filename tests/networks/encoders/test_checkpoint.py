"""Tests of load_encoder_weights: mismatches and untrusted files."""

import re

import pytest
import torch
from monai.networks import nets

from monai_mil_ext.networks.encoders import InputSpec, monai_encoder

COLOR = InputSpec(3, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def densenet(classes=2):
    return nets.DenseNet(2, 3, classes, init_features=8, growth_rate=4, block_config=(1, 1))


def test_load_encoder_weights_lists_mismatches(tmp_path):
    state = densenet().state_dict()
    state["features.extra"] = state.pop("features.conv0.weight")
    state["features.norm0.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pt")
    message = (
        "`path` must hold the weights of DenseNet, got 'w.pt': missing features.conv0.weight; "
        "unexpected features.extra; other shapes features.norm0.bias of (3,) for (8,)."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        monai_encoder(densenet(), tmp_path / "w.pt", COLOR)
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"must hold a dictionary of tensors, got a dictionary of \['epoch', 'loss'\]"):
        monai_encoder(densenet(), tmp_path / "w.pt", COLOR)


class Harm:
    def __reduce__(self):
        return (print, ("harm",))


def test_load_encoder_weights_runs_no_code(tmp_path, capsys):
    torch.save({"a": Harm()}, tmp_path / "w.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        monai_encoder(densenet(), tmp_path / "w.pt", COLOR)
    assert "harm" not in capsys.readouterr().out
