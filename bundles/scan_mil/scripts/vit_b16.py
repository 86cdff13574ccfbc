"""Frozen encoder of the published CT features: ViT-B/16 of torchvision, which need not be installed."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["ViTB16Features"]

SHA256 = "c867db91"  # beginning of the digest of vit_b_16-c867db91.pth: IMAGENET1K_V1
RENAMED = (
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"layers.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.mlp\.(linear_1|0)\.", ".linear1."),
    (r"\.mlp\.(linear_2|3)\.", ".linear2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.pos_embedding", "position"),
)


class ViTB16Features(nn.Module):
    """ViT-B/16 that encodes gray slices (N, 1, 224, 224) as the class token after the last norm (N, 768).

    As in the published features, slices are normalized by the ``mean`` and ``std`` of the data set instead of those of
    ImageNet, and the kernels of the patch convolution are summed over the three colors.

    Args:
        weights: state dict file of torchvision, from which only tensors are read.
        mean: mean that is subtracted from slices.
        std: standard deviation by which slices are divided.
        sha256: beginning of the SHA-256 of the file.

    Raises:
        ValueError: if the file has another hash, or ``std`` is not positive.

    References:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929
    """

    def __init__(self, weights: str, mean: float, std: float, sha256: str = SHA256) -> None:
        super().__init__()
        if not std > 0:
            raise ValueError(f"`std` must be positive, got {std!r}.")
        state = _read(weights, sha256)
        width, patch = state["conv_proj.weight"].shape[0], state["conv_proj.weight"].shape[-1]
        hidden = state["layers.0.linear1.weight"].shape[0]
        depth = sum(name.endswith("norm1.weight") for name in state)
        self.mean = float(mean)
        self.std = float(std)
        self.conv_proj = nn.Conv2d(1, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros_like(state["position"]))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, width // 64, hidden, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.load_state_dict({**state, "conv_proj.weight": state["conv_proj.weight"].sum(1, keepdim=True)})
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode slices (N, 1, h, w) to (N, 768)."""
        patches = self.conv_proj((x - self.mean) / self.std).flatten(2).transpose(1, 2)
        h = torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1) + self.position
        for layer in self.layers:
            h = layer(h)
        features: Tensor = self.norm(h[:, 0])
        return features


def _read(path: str, sha256: str) -> dict[str, Tensor]:
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(sha256):
        raise ValueError(
            f"`weights` must be the file whose SHA-256 begins {sha256}, got {Path(path).name} of {digest}."
        )
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    kept: dict[str, Tensor] = {}
    for theirs, tensor in state.items():
        name = theirs
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if not name.startswith("heads."):
            kept[name] = tensor
    return kept
