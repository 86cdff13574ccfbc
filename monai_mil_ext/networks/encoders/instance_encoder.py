"""An encoder of the instances of a bag, around any network."""

from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_choice

from .encoder_base import EncoderBase, EncoderInput

__all__ = ["InstanceEncoder"]

OUTPUTS = ("as_is", "cls", "mean", "mean_max")


class InstanceEncoder(EncoderBase):
    """Encodes instances (N, C, h, w), or volumes (N, C, x, y, z), to features (N, F), frozen unless told otherwise.

    The network may give features (N, F), tokens (N, T, F) or a map (N, F, ...), whose places count as tokens:

    - ``"as_is"``: (N, F) as the network gives them;
    - ``"cls"``: the first token;
    - ``"mean"``: the mean of the tokens that are no prefix (class and register tokens);
    - ``"mean_max"``: their mean and their maximum, side by side;
    - a callable: from whatever the network gives to (N, F).

    Args:
        net: any network; with ``grey`` its first convolution is replaced.
        expects: channels, size, normalisation and range of the images; wrong images are refused. ``None``: one channel
            from 0 to 1, of any size.
        output: how its output becomes one vector.
        prefix_tokens: how many tokens stand before those of the image.
        grey: whether to take grey images where ``net`` takes colour ones: exactly as if the grey channel were repeated.
        out_features: F; ``None`` finds it out with one blank image.
        frozen: whether it stays in evaluation mode without gradients of its weights.
        amp_dtype: type of autocast; features are float32 again.

    Raises:
        ValueError: when images are not as expected, or the output can't be made (N, F) as asked.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU())
        >>> expects = EncoderInput(channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> encoder = InstanceEncoder(net, expects, output="mean_max", grey=True)
        >>> encoder.out_features, tuple(encoder(torch.rand(5, 1, 16, 16)).shape)
        (16, (5, 16))
    """

    def __init__(
        self,
        net: nn.Module,
        expects: Optional[EncoderInput] = None,
        output: Union[str, Callable[[Any], Tensor]] = "mean",
        prefix_tokens: int = 0,
        grey: bool = False,
        out_features: Optional[int] = None,
        frozen: bool = True,
        amp_dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__(net, expects, grey, frozen, amp_dtype)
        if not callable(output):
            check_choice("output", output, OUTPUTS)
        if output == "cls" and prefix_tokens < 1:
            raise ValueError(f"`prefix_tokens` must be at least 1 for output 'cls', got {prefix_tokens}.")
        self.output = output
        self.prefix_tokens = prefix_tokens
        self.out_features = self._find_width() if out_features is None else out_features

    def forward(self, x: Tensor) -> Tensor:
        """Encode instances (N, C, ...) to (N, F)."""
        features = self._vectors(self.encode(x))
        if features.ndim != 2 or features.shape[1] != self.out_features:
            raise ValueError(
                f"`net` must give features (N, {self.out_features}), got {tuple(features.shape)} "
                f"for instances {tuple(x.shape)}."
            )
        return features

    def _find_width(self) -> int:
        training = [module for module in self.modules() if module.training]
        self.eval()
        with torch.no_grad():
            features = self._vectors(self.encode(self.blank()))
        for module in training:
            module.training = True
        if features.ndim != 2:
            raise ValueError(f"`output` must give (N, F), got {tuple(features.shape)}.")
        return features.shape[1]

    def _vectors(self, given: Any) -> Tensor:
        if callable(self.output):
            features = self.output(given)
            return features.float() if self.amp_dtype is not None else features
        if not isinstance(given, Tensor) or given.ndim < 2:
            got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"`output` must be a callable where the network gives no (N, F, ...), got {got}.")
        given = given.float() if self.amp_dtype is not None else given
        if (given.ndim == 2) != (self.output == "as_is") or (given.ndim > 3 and self.output == "cls"):
            raise ValueError(f"`output` must suit a network that gives {tuple(given.shape)}, got {self.output!r}.")
        if given.ndim == 2:
            return given
        tokens = given if given.ndim == 3 else given.flatten(2).transpose(1, 2)
        if self.output == "cls":
            return tokens[:, 0]
        tokens = tokens[:, self.prefix_tokens :]
        mean = tokens.mean(1)
        return mean if self.output == "mean" else torch.cat([mean, tokens.amax(1)], 1)
