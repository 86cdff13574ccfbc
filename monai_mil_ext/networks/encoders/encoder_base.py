"""What every encoder of images states and checks: its input, its precision, and whether it learns."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive

from .grey import fold_first_conv

__all__ = ["EncoderBase", "EncoderInput"]


@dataclass(frozen=True)
class EncoderInput:
    """What an encoder expects of an image, before the normalisation that the encoder itself does.

    Args:
        channels: of an image.
        size: height and width, or the three sizes of a volume; ``None`` where any will do.
        mean: subtracted by the encoder; one number, or one a channel.
        std: divided by.
        value_range: of the images as they come in; values more than a hundredth of it outside are refused.
            ``None`` takes all.

    Raises:
        ValueError: when a number is not positive, or there are other numbers than channels.
    """

    channels: int = 1
    size: Optional[Sequence[int]] = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    value_range: Optional[Tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_positive(channels=self.channels)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"`{name}` must have 1 or {self.channels} numbers, got {list(values)}.")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"`std` must be positive, got {list(self.std)}.")


class EncoderBase(nn.Module):
    """Runs ``net`` on images that are as stated, normalised, in the stated precision.

    Args:
        net: any network.
        expects: what images must be; ``None`` for one channel from 0 to 1, of any size.
        grey: whether to take grey images where ``net`` takes colour, see :py:func:`fold_first_conv`.
        frozen: whether ``net`` stays in evaluation mode and has no gradients.
        amp_dtype: type of autocast; ``None`` leaves it as it is around the encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        expects: Optional[EncoderInput] = None,
        grey: bool = False,
        frozen: bool = True,
        amp_dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__()
        expects = expects or EncoderInput()
        if grey and expects.channels > 1:
            fold_first_conv(net, expects.mean, expects.std)
            expects = EncoderInput(1, expects.size, value_range=expects.value_range)
        self.net = net
        self.expects = expects
        self.frozen = frozen
        self.amp_dtype = amp_dtype
        self.spatial_dims = _spatial_dims(net) if expects.size is None else len(expects.size)
        for name, values in (("mean", expects.mean), ("std", expects.std)):
            numbers = torch.tensor([float(v) for v in values])
            self.register_buffer(name, numbers.view(-1, *[1] * self.spatial_dims), persistent=False)
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EncoderBase":
        """Set the mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def encode(self, x: Tensor) -> Any:
        """What ``net`` gives for images (N, C, ...), floating numbers in single precision where autocast is ours."""
        if not torch.compiler.is_compiling():
            self._check(x)
        with self._autocast(x.device):
            return self.net((x - self.mean) / self.std)

    def blank(self) -> Tensor:
        """One image of zeros, or of what is nearest to zero in the range."""
        low, high = self.expects.value_range or (0.0, 0.0)
        size = self.expects.size or [64 if self.spatial_dims == 2 else 32] * self.spatial_dims
        value = min(max(0.0, low), high)
        return torch.full((1, self.expects.channels, *size), value, device=self.mean.device)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.amp_dtype is None else torch.autocast(device.type, self.amp_dtype)

    def _check(self, x: Tensor) -> None:
        name, expects = self._net_name(), self.expects
        shape = tuple(x.shape)
        if x.ndim != 2 + self.spatial_dims or x.shape[1] != expects.channels:
            axes = ", ".join("hw" if self.spatial_dims == 2 else "xyz")
            raise ValueError(f"`x` must have shape (N, {expects.channels}, {axes}) for {name}, got {shape}.")
        if expects.size is not None and shape[2:] != tuple(expects.size):
            raise ValueError(f"`x` must be images of size {tuple(expects.size)} for {name}, got {shape[2:]}.")
        if expects.value_range is not None and x.numel():
            low, high = expects.value_range
            slack = (high - low) / 100
            least, most = (float(v) for v in x.detach().aminmax())
            if not (least >= low - slack and most <= high + slack):
                raise ValueError(
                    f"`x` must have values from {low:g} to {high:g} for {name}, got {least:g} to {most:g}."
                )

    def _net_name(self) -> str:
        return type(getattr(self.net, "net", self.net)).__name__


def _spatial_dims(net: nn.Module) -> int:
    return 3 if any(isinstance(module, nn.Conv3d) for module in net.modules()) else 2
