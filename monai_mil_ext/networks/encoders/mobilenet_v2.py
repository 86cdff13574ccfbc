"""MobileNetV2, a small encoder that loads the published ImageNet checkpoint."""

import os
from typing import Any, Dict, List, Optional, Union

import torch
from torch import Tensor, nn

from .checkpoint import load_encoder_weights

__all__ = ["MobileNetV2Features"]

# expansion, width, repetitions, first stride: table 2 of the paper
SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
HEAD = "classifier."
PUBLISHED = (
    "the published one is https://download.pytorch.org/models/mobilenet_v2-b0353104.pth, "
    "and the bundle scan_mil has it in its folder data after `python -m scripts.prepare encoder`"
)


class MobileNetV2Features(nn.Module):
    """MobileNetV2 encoder of images (N, 1 or 3, h, w) in [0, 1] to features (N, 2560).

    The features are the mean and the maximum of the last feature map. A gray image is repeated in all three color
    channels. The network itself normalizes by the mean and standard deviation of ImageNet, so that plain windowed
    slices, or tiles, can be passed. The names of weights are those of the published file
    ``mobilenet_v2-b0353104.pth``, which ``load_state_dict`` accepts unchanged; its classifier is ignored.

    Args:
        weights: path of that file, of which only tensors are read; ``None`` keeps random weights.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file has other weights, or images have another number of channels.

    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381

    Example:
        >>> net = MobileNetV2Features().eval()
        >>> net(torch.rand(2, 1, 64, 48)).shape
        torch.Size([2, 2560])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Optional[Union[str, "os.PathLike[str]"]] = None) -> None:
        super().__init__()
        layers: List[nn.Module] = [_conv(3, 32, stride=2)]
        width = 32
        for expand, out, repeats, stride in SETTINGS:
            for i in range(repeats):
                layers.append(_InvertedResidual(width, out, stride if i == 0 else 1, expand))
                width = out
        self.features = nn.Sequential(*layers, _conv(width, 1280, kernel=1))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.register_load_state_dict_pre_hook(_drop_classifier)
        if weights is not None:
            if not os.path.isfile(weights):
                raise FileNotFoundError(
                    f"`weights` must be a file that exists, got {os.path.basename(weights)!r}; {PUBLISHED}."
                )
            load_encoder_weights(self, weights, ignore=[HEAD])
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (N, 1 or 3, h, w) to (N, 2560)."""
        if x.dim() != 4 or (x.shape[1] != 1 and x.shape[1] != 3):
            raise ValueError(f"`x` must have shape (N, 1 or 3, h, w), got {list(x.shape)}.")
        h = self.features((x - self.mean) / self.std)
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)


class _InvertedResidual(nn.Module):
    def __init__(self, width: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = width * expand
        layers: List[nn.Module] = [_conv(width, hidden, kernel=1)] if expand != 1 else []
        layers += [_conv(hidden, hidden, stride=stride, groups=hidden), nn.Conv2d(hidden, out, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(out))
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def _conv(width: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


def _drop_classifier(_: nn.Module, state_dict: Dict[str, Any], prefix: str, *__: Any) -> None:
    """Remove the ImageNet classifier of the published file from the state dict."""
    for name in [name for name in state_dict if name.startswith(prefix + HEAD)]:
        del state_dict[name]
