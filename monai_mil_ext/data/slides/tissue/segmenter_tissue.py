"""Tissue detection by a segmentation network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive, check_positive_number
from monai_mil_ext.utils.files import load_tensors

from .tissue_map import TissueLabel

__all__ = ["SegmenterTissue"]

Pixels = NDArray[np.uint8]


class SegmenterTissue:
    """Tissue detector that runs a segmentation network on the thumbnail of a slide.

    The network maps pictures (B, 3, h, w) to logits (B, C, h', w'), which may be coarser, or to an output with
    ``logits``, as those of Hugging Face do. One channel of logits is that of the second of two classes. The thumbnail
    is resized to the resolution of the network and passed through it in overlapping windows. Pen marks, folds and other
    artifacts are classes of the network: whatever is neither in ``tissue`` nor in ``glass`` is left out.

    Args:
        network: network on the device on which it should run.
        classes: names of its C classes in order.
        tissue: names of the classes that are tissue.
        mpp: micrometers per pixel that the network needs.
        glass: names of the classes that are background; they only matter for what messages and pictures call left out.
        mean: mean of each channel, with values from 0 to 1, which is subtracted.
        std: standard deviation of each channel, by which the difference is divided.
        window: height and width of a window in pixels.
        weights: file with the weights of the network (a state dict), which is read without pickle.

    Raises:
        FileNotFoundError: when there is no file ``weights``.
        ValueError: when an option is not allowed, the weights do not fit, the output does not have C channels, or the
            resolution of a thumbnail is not known.

    Example:
        >>> dark = nn.Conv2d(3, 1, 1)
        >>> _ = nn.init.constant_(dark.weight, -1.0), nn.init.constant_(dark.bias, 2.5)
        >>> tissue = SegmenterTissue(dark, classes=["background", "tissue"], mpp=8)
        >>> thumbnail = np.full((40, 40, 3), 240, dtype=np.uint8)
        >>> thumbnail[10:30, 10:30] = 190, 110, 170
        >>> labels = tissue.labels(thumbnail, mpp=8)
        >>> int(labels[20, 20]), int(labels[20, 5])
        (1, 0)
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        tissue: Sequence[str] = ("tissue",),
        mpp: float = 8.0,
        glass: Sequence[str] = ("background",),
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        window: int = 512,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        check_positive_number(mpp=mpp)
        check_positive(window=window)
        self.classes = tuple(map(str, classes))
        kinds = {"tissue": [tissue] if isinstance(tissue, str) else list(tissue)}
        kinds["glass"] = [glass] if isinstance(glass, str) else list(glass)
        for name, names in kinds.items():
            if not names or not set(names) <= set(self.classes):
                raise ValueError(f"`{name}` must be names among {list(self.classes)}, got {names}.")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"`mean` and `std` must have three values, those of `std` positive, got {mean}, {std}.")
        if weights is not None:
            _load(network, weights)
        self.network = network.eval()
        self.mpp = float(mpp)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.window = window
        others = [name for name in self.classes if name not in kinds["tissue"] + kinds["glass"]]
        self.left_out = ", ".join(others)
        self._labels = [self._label(name, kinds["tissue"], others) for name in self.classes]

    def __call__(self, thumbnail: Pixels, mpp: float | None = None) -> NDArray[np.bool_]:
        """Return the tissue mask (h, w) of a thumbnail (h, w, 3)."""
        mask: NDArray[np.bool_] = self.labels(thumbnail, mpp) == TissueLabel.TISSUE
        return mask

    @torch.inference_mode()
    def labels(self, thumbnail: Pixels, mpp: float | None = None) -> Pixels:
        """Return the :py:class:`TissueLabel` (h, w) of a thumbnail (h, w, 3) of ``mpp`` micrometers per pixel."""
        if mpp is None:
            raise ValueError("`mpp` must be the resolution of the thumbnail for a segmentation network, got None.")
        size = thumbnail.shape[:2]
        parameter = next(self.network.parameters(), torch.empty(0))
        pixels = torch.from_numpy(np.ascontiguousarray(thumbnail)).to(parameter.device).permute(2, 0, 1)[None] / 255
        pixels = _resize(pixels, tuple(max(1, round(side * mpp / self.mpp)) for side in size))
        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        windows = SlidingWindowInferer(self.window, overlap=0.25, mode="gaussian", padding_mode="replicate")
        logits = windows(((pixels - mean) / std).to(parameter.dtype), self._logits)
        classes = logits.argmax(dim=1, keepdim=True).float()
        classes = nn.functional.interpolate(classes, size=size, mode="nearest-exact")[0, 0].long().cpu()
        labels: Pixels = np.array(self._labels, dtype=np.uint8)[classes.numpy()]
        return labels

    def _logits(self, pixels: Tensor) -> Tensor:
        output: Any = self.network(pixels)
        output = getattr(output, "logits", output)
        logits: Tensor = output[0] if isinstance(output, (list, tuple)) else output
        if logits.shape[1] == 1 and len(self.classes) == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if logits.ndim != 4 or logits.shape[1] != len(self.classes):
            raise ValueError(
                f"`network` must give logits of {len(self.classes)} classes, got shape {tuple(logits.shape)}."
            )
        return _resize(logits, pixels.shape[2:])

    @staticmethod
    def _label(name: str, tissue: Sequence[str], others: Sequence[str]) -> int:
        if name in others:
            return TissueLabel.INK + others.index(name)
        return int(TissueLabel.TISSUE if name in tissue else TissueLabel.GLASS)


def _load(network: nn.Module, path: str | os.PathLike[str]) -> None:
    try:
        network.load_state_dict(load_tensors(path))
    except (AttributeError, RuntimeError, TypeError):
        kind = type(network).__name__
        raise ValueError(f"`weights` must be a state dict of {kind}, got {os.path.basename(path)!r}.") from None


def _resize(image: Tensor, size: Sequence[int]) -> Tensor:
    if image.shape[2:] == tuple(size):
        return image
    return nn.functional.interpolate(image, size=tuple(size), mode="bilinear", antialias=True)
