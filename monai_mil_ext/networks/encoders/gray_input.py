"""Exact conversion of networks for color images to gray images, with a third of the input."""

from typing import List, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

__all__ = ["adapt_input_conv", "fold_rgb_conv"]

PlainConv = Union[nn.Conv2d, nn.Conv3d]


def fold_rgb_conv(conv: PlainConv, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> nn.Module:
    r"""Create the convolution of a gray image that equals ``conv`` of the image repeated and normalized per channel.

    .. math:: \sum_c W_c * \frac{g - m_c}{s_c} = \Big(\sum_c \frac{W_c}{s_c}\Big) * g
              - \Big(\sum_c \frac{W_c m_c}{s_c}\Big) * 1

    The second term is a constant that is added to the bias, unless there is padding: padding is zero after the
    normalization, so the term differs at the border. It is then computed from a channel of ones, padded like the image.

    Args:
        conv: convolution with one group; it is not changed.
        mean: mean of each channel, or one for all.
        std: standard deviation of each channel, or one for all.

    Raises:
        ValueError: when ``conv`` is not a plain convolution with one group, or the numbers do not match its channels.

    Example:
        >>> conv, gray = nn.Conv2d(3, 8, 4), torch.rand(2, 1, 9, 9)
        >>> torch.allclose(fold_rgb_conv(conv)(gray), conv(gray.expand(-1, 3, -1, -1)), atol=1e-6)
        True
    """
    if type(conv) not in (nn.Conv2d, nn.Conv3d) or conv.groups != 1:
        groups = getattr(conv, "groups", None)
        raise ValueError(f"`conv` must be a Conv2d or Conv3d of one group, got {type(conv).__name__} of {groups}.")
    center, scale = (_per_channel(n, v, conv) for n, v in (("mean", mean), ("std", std)))
    weight = conv.weight.detach().double()
    folded = (weight / scale).sum(1, keepdim=True)
    constant = -(weight * center / scale).sum(1, keepdim=True)
    if not constant.any():
        return _with_weight(conv, folded, None)
    if conv.padding == "valid" or not any(conv.padding):
        return _with_weight(conv, folded, constant.flatten(1).sum(1))
    return _WithOnes(_with_weight(conv, torch.cat([folded, constant], 1), None))


def adapt_input_conv(net: nn.Module, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
    """Replace the first convolution of ``net`` by its form for gray images, see :py:func:`fold_rgb_conv`.

    The first convolution is the first one in the order of modules. The attribute ``num_channels`` of its parent
    modules, with which ``transformers`` checks images, is set to 1.

    Raises:
        ValueError: when there is no convolution of several channels, or it cannot be converted.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Conv2d(8, 8, 1))
        >>> adapt_input_conv(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> net(torch.rand(2, 1, 9, 9)).shape
        torch.Size([2, 8, 6, 6])
    """
    convs: List[Tuple[str, PlainConv]] = [
        (n, m) for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))
    ]
    if not convs or not convs[0][0] or convs[0][1].in_channels < 2:
        got = f"{convs[0][0] or 'itself'!r} of {convs[0][1].in_channels}" if convs else "none"
        raise ValueError(f"`net` must hold a first convolution of several channels, got {got}.")
    name, conv = convs[0]
    parent = net.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], fold_rgb_conv(conv, mean, std))
    path = name.split(".")
    for module in (net.get_submodule(".".join(path[:depth])) for depth in range(len(path))):
        if hasattr(module, "num_channels"):
            module.num_channels = 1  # type: ignore[assignment]


class _WithOnes(nn.Module):
    """Convolution of the image and a channel of ones."""

    def __init__(self, conv: PlainConv) -> None:
        super().__init__()
        self.conv = conv

    @property
    def weight(self) -> Tensor:
        """Weight of the convolution, by whose dtype some networks cast images."""
        return self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        """Convolve gray images (N, 1, ...)."""
        out: Tensor = self.conv(torch.cat([x, torch.ones_like(x)], 1))
        return out


def _per_channel(name: str, values: Sequence[float], conv: PlainConv) -> Tensor:
    if len(values) not in (1, conv.in_channels):
        raise ValueError(f"`{name}` must have 1 or {conv.in_channels} numbers, got {len(values)}.")
    tensor = torch.as_tensor(values, dtype=torch.float64, device=conv.weight.device)
    return tensor.expand(conv.in_channels).view(-1, *[1] * (conv.weight.ndim - 2))


def _with_weight(conv: PlainConv, weight: Tensor, constant: Union[Tensor, None]) -> PlainConv:
    """Copy the convolution with another weight, and ``constant`` added to its bias."""
    bias = None if conv.bias is None else conv.bias.detach().double()
    if constant is not None:
        bias = constant if bias is None else bias + constant
    new_conv = type(conv)(
        weight.shape[1],
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        new_conv.weight.copy_(weight)
        if new_conv.bias is not None and bias is not None:
            new_conv.bias.copy_(bias)
    return new_conv.requires_grad_(conv.weight.requires_grad).train(conv.training)
