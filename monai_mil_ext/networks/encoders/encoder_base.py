"""Base class of image encoders: input checks, normalization, precision and freezing."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive

from .gray_input import adapt_input_conv

__all__ = ["EncoderBase", "InputSpec"]


@dataclass(frozen=True)
class InputSpec:
    """Specification of the input images of an encoder, before the normalization by the encoder itself.

    Args:
        channels: number of channels of an image.
        size: height and width, or the three sizes of a volume; ``None`` means any size.
        mean: mean that the encoder subtracts; one number, or one per channel.
        std: standard deviation by which the encoder divides; one number, or one per channel.
        value_range: smallest and largest value of the input images; values outside by more than a hundredth of the
            range are rejected. ``None`` accepts all values.

    Raises:
        ValueError: when a number is not positive, or the number of values does not match the channels.
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
    """Base class of encoders, which check and normalize images and run a network on them.

    Args:
        net: any network.
        input_spec: specification of the images; ``None`` means one channel from 0 to 1, of any size.
        gray: whether to take gray images if ``net`` takes color images, see :py:func:`adapt_input_conv`.
        frozen: whether ``net`` stays in evaluation mode and has no gradients.
        amp_dtype: dtype of autocast; ``None`` keeps the autocast state of the caller.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        input_spec: Optional[InputSpec] = None,
        gray: bool = False,
        frozen: bool = True,
        amp_dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__()
        input_spec = input_spec or InputSpec()
        if gray and input_spec.channels > 1:
            adapt_input_conv(net, input_spec.mean, input_spec.std)
            input_spec = InputSpec(1, input_spec.size, value_range=input_spec.value_range)
        self.net = net
        self.input_spec = input_spec
        self.frozen = frozen
        self.amp_dtype = amp_dtype
        self.spatial_dims = _spatial_dims(net) if input_spec.size is None else len(input_spec.size)
        for name, values in (("mean", input_spec.mean), ("std", input_spec.std)):
            buffer = torch.tensor([float(v) for v in values])
            self.register_buffer(name, buffer.view(-1, *[1] * self.spatial_dims), persistent=False)
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EncoderBase":
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def encode(self, x: Tensor) -> Any:
        """Check and normalize images (N, C, ...) and return the output of ``net``."""
        if not torch.compiler.is_compiling():
            self._check_images(x)
        with self._autocast(x.device):
            return self.net((x - self.mean) / self.std)

    def dummy_input(self) -> Tensor:
        """Return one image of zeros, or of the value in the range that is nearest to zero."""
        low, high = self.input_spec.value_range or (0.0, 0.0)
        size = self.input_spec.size or [64 if self.spatial_dims == 2 else 32] * self.spatial_dims
        value = min(max(0.0, low), high)
        return torch.full((1, self.input_spec.channels, *size), value, device=self.mean.device)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.amp_dtype is None else torch.autocast(device.type, self.amp_dtype)

    def _check_images(self, x: Tensor) -> None:
        name, input_spec = self._net_name(), self.input_spec
        shape = tuple(x.shape)
        if x.ndim != 2 + self.spatial_dims or x.shape[1] != input_spec.channels:
            axes = ", ".join("hw" if self.spatial_dims == 2 else "xyz")
            raise ValueError(f"`x` must have shape (N, {input_spec.channels}, {axes}) for {name}, got {shape}.")
        if input_spec.size is not None and shape[2:] != tuple(input_spec.size):
            raise ValueError(f"`x` must be images of size {tuple(input_spec.size)} for {name}, got {shape[2:]}.")
        if input_spec.value_range is not None and x.numel():
            low, high = input_spec.value_range
            tolerance = (high - low) / 100
            smallest, largest = (float(v) for v in x.detach().aminmax())
            if not (smallest >= low - tolerance and largest <= high + tolerance):
                raise ValueError(
                    f"`x` must have values from {low:g} to {high:g} for {name}, got {smallest:g} to {largest:g}."
                )

    def _net_name(self) -> str:
        return type(getattr(self.net, "net", self.net)).__name__


def _spatial_dims(net: nn.Module) -> int:
    return 3 if any(isinstance(module, nn.Conv3d) for module in net.modules()) else 2
