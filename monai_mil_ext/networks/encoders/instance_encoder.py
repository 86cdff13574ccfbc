"""Encoder of the instances of a bag with any network."""

from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_choice

from .encoder_base import EncoderBase, InputSpec

__all__ = ["InstanceEncoder"]

OUTPUTS = ("identity", "cls", "mean", "mean_max")


class InstanceEncoder(EncoderBase):
    """Encoder of instances (N, C, h, w), or of volumes (N, C, x, y, z), to features (N, F), frozen by default.

    The output of the network is features (N, F), tokens (N, T, F) or a map (N, F, ...), whose positions are tokens.
    ``output`` selects the features:

    - ``"identity"``: the output (N, F) of the network;
    - ``"cls"``: the first token;
    - ``"mean"``: the mean of the tokens without the prefix (class and register tokens);
    - ``"mean_max"``: the concatenated mean and maximum of these tokens;
    - a callable: its result (N, F) for the output of the network.

    Args:
        net: any network; with ``gray`` its first convolution is replaced.
        input_spec: channels, size, normalization and range of the images; other images are rejected. ``None`` means one
            channel from 0 to 1, of any size.
        output: conversion of the output of the network to one vector per instance.
        prefix_tokens: number of tokens before those of the image.
        gray: whether to take gray images if ``net`` takes color images, exactly as if the gray channel were repeated.
        out_features: number F of features; ``None`` determines it with one blank image.
        frozen: whether the encoder stays in evaluation mode without gradients of its weights.
        amp_dtype: dtype of autocast, after which features are converted to float32; ``None`` keeps the autocast state
            of the caller.

    Raises:
        ValueError: when images are not as expected, or the output of the network does not suit ``output``.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU())
        >>> input_spec = InputSpec(channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> encoder = InstanceEncoder(net, input_spec, output="mean_max", gray=True)
        >>> encoder.out_features, tuple(encoder(torch.rand(5, 1, 16, 16)).shape)
        (16, (5, 16))
    """

    def __init__(
        self,
        net: nn.Module,
        input_spec: Optional[InputSpec] = None,
        output: Union[str, Callable[[Any], Tensor]] = "mean",
        prefix_tokens: int = 0,
        gray: bool = False,
        out_features: Optional[int] = None,
        frozen: bool = True,
        amp_dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__(net, input_spec, gray, frozen, amp_dtype)
        if not callable(output):
            check_choice("output", output, OUTPUTS)
        if output == "cls" and prefix_tokens < 1:
            raise ValueError(f"`prefix_tokens` must be at least 1 for output 'cls', got {prefix_tokens}.")
        self.output = output
        self.prefix_tokens = prefix_tokens
        self.out_features = self._count_features() if out_features is None else out_features

    def forward(self, x: Tensor) -> Tensor:
        """Encode instances (N, C, ...) to (N, F)."""
        features = self._to_features(self.encode(x))
        if features.ndim != 2 or features.shape[1] != self.out_features:
            raise ValueError(
                f"`net` must give features (N, {self.out_features}), got {tuple(features.shape)} "
                f"for instances {tuple(x.shape)}."
            )
        return features

    def _count_features(self) -> int:
        training = [module for module in self.modules() if module.training]
        self.eval()
        with torch.no_grad():
            features = self._to_features(self.encode(self.dummy_input()))
        for module in training:
            module.training = True
        if features.ndim != 2:
            raise ValueError(f"`output` must give (N, F), got {tuple(features.shape)}.")
        return features.shape[1]

    def _to_features(self, result: Any) -> Tensor:
        if callable(self.output):
            features = self.output(result)
            return features.float() if self.amp_dtype is not None else features
        if not isinstance(result, Tensor) or result.ndim < 2:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(f"`output` must be a callable for a network without output (N, F, ...), got {got}.")
        result = result.float() if self.amp_dtype is not None else result
        if (result.ndim == 2) != (self.output == "identity") or (result.ndim > 3 and self.output == "cls"):
            raise ValueError(f"`output` must suit a network with output {tuple(result.shape)}, got {self.output!r}.")
        if result.ndim == 2:
            return result
        tokens = result if result.ndim == 3 else result.flatten(2).transpose(1, 2)
        if self.output == "cls":
            return tokens[:, 0]
        tokens = tokens[:, self.prefix_tokens :]
        mean = tokens.mean(1)
        return mean if self.output == "mean" else torch.cat([mean, tokens.amax(1)], 1)
