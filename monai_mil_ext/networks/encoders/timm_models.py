"""Encoders from ``timm``."""

import os
from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import import_extra

from .checkpoint import load_encoder_weights
from .encoder_base import EncoderInput
from .instance_encoder import InstanceEncoder

__all__ = ["timm_encoder"]


def timm_encoder(
    model: str,
    checkpoint: Optional[Union[str, "os.PathLike[str]"]] = None,
    expects: Optional[EncoderInput] = None,
    output: Union[str, Callable[[Any], Tensor]] = "mean",
    grey: bool = False,
    frozen: bool = True,
    amp_dtype: Optional[torch.dtype] = None,
) -> InstanceEncoder:
    """Make an encoder of a ``timm`` model, without its head.

    Normalisation and size are those of the model's pretrained configuration. The package needs torchvision; here it is
    tested against a stand-in that has the functions and attributes which this one uses.

    Args:
        model: name of the model.
        checkpoint: file of its weights, read as tensors only; ``None`` has timm fetch its own.
        expects: instead of what the model's configuration says.
        output: see :py:class:`InstanceEncoder`.
        grey: see :py:class:`InstanceEncoder`.
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        OptionalImportError: without ``timm`` (``pip install monai-mil-ext[timm]``).
        ValueError: when the checkpoint doesn't fit.
    """
    timm = import_extra("timm", "timm")
    net = timm.create_model(model, pretrained=checkpoint is None, num_classes=0)
    if checkpoint is not None:
        load_encoder_weights(net, checkpoint, ("head.", "fc.", "classifier."))
    if expects is None:
        told = timm.data.resolve_model_data_config(net)
        channels, *size = told["input_size"]
        expects = EncoderInput(channels, size, told["mean"], told["std"])
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    return InstanceEncoder(_ForwardFeatures(net), expects, output, prefix, grey, frozen=frozen, amp_dtype=amp_dtype)


class _ForwardFeatures(nn.Module):
    """Tokens (N, T, F) or a map (N, F, h, w)."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Run the model on images (N, C, h, w)."""
        features: Tensor = self.net.forward_features(x)
        # some (Swin) give maps with their features last
        last = features.ndim == 4 and features.shape[1] != self.net.num_features == features.shape[-1]
        return features.movedim(-1, 1) if last else features
