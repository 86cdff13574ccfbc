"""Tests of the configuration file of a network and of settings files."""

import json

import pytest
import torch
from torch import nn

from monai_mil_ext.apps.bundle import check_network_config, read_json, save_network_config
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL, TransMIL
from monai_mil_ext.utils import write_json

SIZES = {"in_features": 8, "num_classes": 2, "hidden_size": 16}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.json"


@pytest.mark.parametrize("kind", [ABMIL, ASMIL, QGMIL, TransMIL])
def test_check_network_config_ignores_weights_mode_and_dropout(kind, path):
    save_network_config(path, kind(**SIZES, dropout=0.5))
    check_network_config(path, kind(**SIZES, dropout=0.0).eval())


def test_check_network_config_ignores_token_drop(path):
    save_network_config(path, ASMIL(**SIZES, token_drop=0.5))
    check_network_config(path, ASMIL(**SIZES, token_drop=0.0))


def test_check_network_config_rejects_options_with_equal_weight_shapes(path):
    trained, other = ASMIL(**SIZES, num_heads=2).eval(), ASMIL(**SIZES, num_heads=4).eval()
    other.load_state_dict(trained.state_dict())  # loads silently
    bag = torch.randn(1, 9, 8)
    assert not torch.allclose(trained(bag), other(bag))
    save_network_config(path, trained)
    with pytest.raises(ValueError, match=r"network that was trained, whose \S*num_heads is 2, got 4; .*--network_def#"):
        check_network_config(path, other)


def test_check_network_config_rejects_other_activation_and_accepts_older_file(path):
    save_network_config(path, nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(ValueError, match=r"whose 1\.class is ReLU, got GELU"):
        check_network_config(path, nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    path.write_text(json.dumps({**json.loads(path.read_text()), "1.of_another_version": 3}))
    check_network_config(path, nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))  # left to load_state_dict


def test_check_network_config_accepts_missing_file_and_rejects_broken_file(path):
    check_network_config(path, nn.Linear(2, 2))
    path.write_text("[")
    with pytest.raises(ValueError, match=r"`path` must be a JSON file of settings, got 'network\.json'"):
        check_network_config(path, nn.Linear(2, 2))


def test_read_json_prefers_the_file_to_defaults(tmp_path):
    write_json(tmp_path / "s.json", {"in_features": 12, "class_names": ["a", "b"]})
    settings = read_json(tmp_path / "s.json", in_features=1024, num_classes=2)
    assert settings == {"in_features": 12, "num_classes": 2, "class_names": ["a", "b"]}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_read_json_rejects_a_file_that_is_not_json(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match="`path` must be a JSON file of settings, got 's"):
        read_json(tmp_path / "s.json")
