"""Training steps of networks of torchmil and MONAI, and of ours with as many weights, without dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from monai_mil_ext.networks import nets
from tests.benchmarks.baselines import bag_loss, stepped

__all__ = ["PEERS", "Pair", "steps_of"]


class Pair(NamedTuple):
    """Network of another package, ours with as many weights, and the features of their instances."""

    theirs: nn.Module
    ours: nn.Module
    features: int = 1024


class OnFeatures(nn.Module):
    """MONAI's network for images, on features: its backbone only drops the axes of an image."""

    def __init__(self, mode: str, features: int) -> None:
        from monai.networks.nets import MILModel

        super().__init__()
        self.net = MILModel(1, mode, pretrained=False, backbone=nn.Flatten(), backbone_num_features=features)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x[..., None, None])
        return logits


def transformer(features: int, num_layers: int, ffn_size: int) -> nn.Module:
    """Return QG-MIL with the parts of a plain transformer."""
    block = nets.QGMILBlock(norm="layer", qk_norm=False, gate="none", ffn="mlp", ffn_size=ffn_size)
    return nets.QGMIL(features, 1, num_layers=num_layers, block=block, dropout=0)


def torchmil_transformer() -> Pair:
    """Return a transformer block of width 512, pooled by attention."""
    from torchmil.models import TransformerABMIL

    return Pair(TransformerABMIL((1024,), transf_att_dim=512), transformer(1024, num_layers=1, ffn_size=2816))


def monai_att() -> Pair:
    """Return ABMIL with a score of 2,048 hidden units."""
    return Pair(OnFeatures("att", 1024), nets.ABMIL(1024, 1, attention_size=2048, gated=False))


def monai_att_trans() -> Pair:
    """Return four transformer blocks of width 512, pooled by attention."""
    return Pair(OnFeatures("att_trans", 512), transformer(512, num_layers=4, ffn_size=2144), 512)


PEERS: dict[str, Callable[[], Pair]] = {
    "torchmil_transformer": torchmil_transformer,
    "monai_att": monai_att,
    "monai_att_trans": monai_att_trans,
}


def steps_of(name: str) -> tuple[dict[str, Callable[[Tensor], None]], int]:
    """Return the training steps of a pair on the loss of the bag, and the features of its instances."""
    pair = PEERS[name]()

    def step(net: nn.Module) -> Callable[[Tensor], None]:
        return stepped(net, lambda x: bag_loss(net(x).view(-1), x.new_ones(1)))

    return {name.split("_", maxsplit=1)[0]: step(pair.theirs), "ours": step(pair.ours)}, pair.features
