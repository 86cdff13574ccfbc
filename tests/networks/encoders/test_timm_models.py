"""Tests of encoders from timm, with a stand-in for the library."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.encoders import InputSpec, timm_encoder

COLOR = InputSpec(3, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def save(net, folder, key=None, prefix=""):
    state = {prefix + name: value for name, value in net.state_dict().items()}
    torch.save({key: state, "epoch": 3} if key else state, folder / "weights.pt")
    return folder / "weights.pt"


class StandIn(nn.Module):
    """Stand-in with what timm_encoder uses of a timm model, which needs torchvision."""

    def __init__(self, last):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.num_features, self.num_prefix_tokens, self.last = 6, 0, last

    def forward_features(self, x):
        features = self.stem(x)
        return features.movedim(1, -1) if self.last else features


@pytest.mark.parametrize("last", [False, True])
def test_timm_encoder_with_a_stand_in(tmp_path, monkeypatch, last):
    config = {"input_size": (3, 8, 8), "mean": COLOR.mean, "std": COLOR.std}
    calls = []
    timm = types.ModuleType("timm")
    timm.create_model = lambda name, **options: calls.append((name, options)) or StandIn(last)
    timm.data = types.SimpleNamespace(resolve_model_data_config=lambda net: config)
    monkeypatch.setitem(sys.modules, "timm", timm)
    source, x = StandIn(last), torch.rand(2, 1, 8, 8)
    encoder = timm_encoder("some_model", save(source, tmp_path), gray=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (COLOR.mean, COLOR.std))
    assert_close(encoder(x), source.stem((x - mean) / std).mean((2, 3)), atol=1e-6, rtol=1e-6)
    assert calls == [("some_model", {"pretrained": False, "num_classes": 0})]
    assert timm_encoder("some_model").input_spec == InputSpec(3, [8, 8], COLOR.mean, COLOR.std)
    assert calls[1] == ("some_model", {"pretrained": True, "num_classes": 0})


def test_timm_encoder_without_timm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(Exception, match="timm"):
        timm_encoder("some_model")
