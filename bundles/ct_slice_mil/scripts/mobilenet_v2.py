"""The frozen encoder of the bundle: MobileNetV2 with ImageNet weights, one vector a slice."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["MobileNetV2Features"]

SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


class MobileNetV2Features(nn.Module):
    """Mean and maximum over the last feature map of MobileNetV2: grey slices (N, 1, h, w) in [0, 1] to (N, 2560).

    A grey slice stands in all three colour channels and is normalised with ImageNet's mean and standard deviation;
    both are folded into the first convolution's input here, so a caller gives plain windowed slices.

    Args:
        weights: file of the ImageNet state dict; it must have the one known SHA-256 and is read as tensors only.

    Raises:
        ValueError: when the file is another one.

    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, stride=2)]
        width = 32
        for expand, out, repeats, stride in SETTINGS:
            for i in range(repeats):
                layers.append(_InvertedResidual(width, out, stride if i == 0 else 1, expand))
                width = out
        self.features = nn.Sequential(*layers, _conv(width, 1280, kernel=1))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.load_state_dict(_read(weights))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode slices (N, 1, h, w) to (N, 2560)."""
        h = self.features((x - self.mean) / self.std)
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)


class _InvertedResidual(nn.Module):
    def __init__(self, width: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = width * expand
        layers: list[nn.Module] = [_conv(width, hidden, kernel=1)] if expand != 1 else []
        layers += [_conv(hidden, hidden, stride=stride, groups=hidden), nn.Conv2d(hidden, out, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(out))
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def _conv(width: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


def _read(path: str) -> dict[str, Tensor]:
    content = Path(path).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(f"`weights` must be the file of SHA-256 {SHA256}, got {Path(path).name} of {found}.")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}
