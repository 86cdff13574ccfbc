"""Result of one scan, as its DICOM objects state it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_mil_ext.data.scans.score_bands import ScoreBands
from monai_mil_ext.utils import check_positive

__all__ = ["ScanResult"]

POSITIVE = "the positive class"  # of a model whose classes have no names
SHORT = 24  # characters of the name of a class in a description of 64


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Result of one scan: scores of its slices and probabilities of its classes.

    Args:
        volume: scores in the voxels of the scan (1, X, Y, Z), see
            :py:class:`monai_mil_ext.transforms.SliceScoresToVolume`.
        probabilities: probability of each class, by the name of the class.
        predicted: name of the predicted class; empty if it is not known.
        top_k: number of slices to list.
        bands: bands of slices to mark; by default rank 1, the others of the top slices, and twice as many after them.
        chosen: 1 in the voxels of slices that hold a lesion with a stated probability, and else 0, as ``volume``.
        guarantee: sentence on ``chosen``, or on why there is no such set.

    Raises:
        ValueError: when a probability is not in [0, 1] or ``top_k`` is not positive.

    Example:
        >>> import torch
        >>> result = ScanResult(MetaTensor(torch.zeros(1, 4, 4, 9)), {"benign": 0.25, "malignant": 0.75}, "malignant")
        >>> result.summary(), result.marked.names
        ('malignant 0.75', ['slice of rank 1', 'slices ranked 2 to 4', 'slices ranked 5 to 12'])
        >>> result.rank(np.array([0.1, 0.5, 0.0, 0.4])).tolist()
        [1, 3, 0]
    """

    volume: MetaTensor
    probabilities: Mapping[str, float] = field(default_factory=dict)
    predicted: str = ""
    top_k: int = 4
    bands: ScoreBands | None = None
    chosen: MetaTensor | None = None
    guarantee: str = ""

    def __post_init__(self) -> None:
        check_positive(top_k=self.top_k)
        for probability in self.probabilities.values():
            if not 0 <= probability <= 1:
                raise ValueError(f"`probability` must be in [0, 1], got {probability}.")

    @property
    def marked(self) -> ScoreBands:
        """Bands of the slices to mark."""
        return self.bands or ScoreBands(top_k=sorted({1, self.top_k, 3 * self.top_k}))

    def summary(self) -> str:
        """Describe the prediction in a few characters: predicted class, or else the last one, and its probability."""
        if not self.probabilities:
            return ""
        name = self.predicted if self.predicted in self.probabilities else list(self.probabilities)[-1]
        short = name if len(name) <= SHORT else f"{name[: SHORT - 3]}..."
        return f"{short} {self.probabilities[name]:.2f}"

    def rank(self, scores: NDArray[np.floating], chosen: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
        """Return the indices of the slices to list, the highest of ``scores`` (N,) first.

        These are the ``top_k`` slices with a positive score and all that are ``chosen`` (N,); at least one.
        """
        order = np.argsort(-scores, kind="stable")
        is_listed = (np.arange(len(order)) < self.top_k) & (scores[order] > 0)
        if chosen is not None:
            is_listed |= chosen[order]
        is_listed[:1] = True
        return order[is_listed]

    def content(self) -> Sequence[str]:
        """Return texts that differ where two results of the same scores do."""
        named = [f"{name}={value!r}" for name, value in self.probabilities.items()]
        return [*self.marked.names, *named, self.predicted, str(self.top_k), self.guarantee]
