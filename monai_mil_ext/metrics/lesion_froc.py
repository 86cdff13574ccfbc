"""FROC: sensitivity for lesions at given numbers of false detections per bag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.metrics import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score
from monai.transforms import ProbNMS
from torch import Tensor

from monai_mil_ext.utils import head_mean, optional_dependency

from .bag_iteration_metric import BagIterationMetric

ndimage = optional_dependency("", "scipy.ndimage")

__all__ = ["FROCMetric", "LesionHits", "froc_values", "lesion_hits"]

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of CAMELYON16
FALSE, FOUND, BAG = 0.0, 1.0, 2.0  # kinds of rows in the buffer of the metric


class LesionHits(NamedTuple):
    """Detections of one bag.

    Attributes:
        false: scores (M,) of the instances outside of all lesions.
        found: for each lesion (L,), the highest score of the instances in it; 0 if there is none.
    """

    false: Tensor
    found: Tensor


def lesion_hits(
    scores: Tensor,
    coords: Tensor,
    lesions: Tensor,
    *,
    tile_size: float | Sequence[float] = 1.0,
    spacing: float | Sequence[float] = 1.0,
    box_size: int | None = None,
    exclude: Sequence[int] = (),
) -> LesionHits:
    """Split the scores of a bag into detected lesions and false detections with MONAI's ``compute_fp_tp_probs_nd``.

    As in CAMELYON16, an instance is a point, the center of its tile, and detects the lesion that contains it; several
    instances in a lesion count once. Every instance is a detection, unless ``box_size`` is given: then MONAI's
    ``ProbNMS`` keeps the highest score of each neighborhood on the grid of tiles, so that a false region of many tiles
    counts once. It is applied to the ranks of the scores, since no fixed probability threshold suits attention.

    Args:
        scores: scores (N,), not negative; 0 is no detection.
        coords: lowest corners (N, D) of the tiles in the axis order of ``lesions``: (y, x) for an image, so the (x, y)
            of most tile files must be flipped.
        lesions: mask with D axes whose first voxel is at coordinate 0: Boolean, whose connected regions (including
            diagonal neighbors) are the lesions, or integers with 0 for background and one number per lesion.
        tile_size: size of a tile in the unit of ``coords``; 0 if these are centers.
        spacing: size of a pixel of ``lesions`` in the unit of ``coords``, for example 64 for level 6 of a pyramid.
        box_size: size of a neighborhood in tiles.
        exclude: numbers of lesions that count neither as lesions nor as false detections, for example isolated tumor
            cells.

    Returns:
        Scores of false detections and of lesions.

    Raises:
        ValueError: if shapes don't match, a score is negative or not finite, or a tile lies outside of the mask.

    References:
        Ehteshami Bejnordi et al., "Diagnostic Assessment of Deep Learning Algorithms for Detection of Lymph Node
        Metastases in Women With Breast Cancer", JAMA 318(22), 2017.

    Example:
        >>> lesions = torch.tensor([[1, 0, 0], [0, 0, 1]]).bool()
        >>> coords = torch.tensor([[0, 0], [0, 1], [1, 1]])
        >>> hits = lesion_hits(torch.tensor([0.5, 0.25, 0.125]), coords, lesions, tile_size=0)
        >>> hits.false.tolist(), hits.found.tolist()
        ([0.25, 0.125], [0.5, 0.0])
    """
    # float32, as MONAI returns scores of lesions: those of false detections must tie with them
    s = head_mean(scores.detach()).float().cpu()
    if not s.isfinite().all() or (s < 0).any():
        raise ValueError(f"`scores` must be finite and >= 0, got {s}.")
    mask = lesions.detach().cpu().numpy()
    if coords.shape != (len(s), mask.ndim):
        raise ValueError(f"`coords` must be (N, D) = {(len(s), mask.ndim)}, got {tuple(coords.shape)}.")
    corners = coords.detach().cpu().double().numpy()
    pixels = np.floor((corners + np.asarray(tile_size) / 2) / np.asarray(spacing))
    if not ((pixels >= 0) & (pixels < mask.shape)).all():  # before the conversion, which makes some number of a NaN
        raise ValueError(f"`coords` must lie in the mask of shape {mask.shape}, got pixels up to {pixels.max(axis=0)}.")
    if box_size is not None:
        kept = _highest(s, corners, box_size)
        s, pixels = s[kept], pixels[kept]
    return _split_by_lesion(s, pixels.astype(int), mask, exclude)


def _split_by_lesion(
    scores: Tensor, pixels: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], exclude: Sequence[int]
) -> LesionHits:
    if mask.dtype == bool:
        mask, _ = ndimage.label(mask, structure=ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    numbers = [i for i in np.unique(mask).tolist() if i > 0]
    regions = np.searchsorted([0, *numbers], mask)  # renumbered to 1, 2, ..., since unused numbers would be lesions
    excluded = [k for k, i in enumerate(numbers, 1) if i in exclude]
    false, found, _ = compute_fp_tp_probs_nd(scores.numpy(), pixels, regions, excluded)
    included = [k for k, i in enumerate(numbers) if i not in exclude]
    return LesionHits(torch.as_tensor(false), torch.as_tensor(found)[included])


def _highest(scores: Tensor, corners: np.ndarray[Any, Any], box_size: int) -> list[int]:
    """Return the indices of the instances that ``ProbNMS`` keeps on the grid of their corners."""
    axes = [np.unique(column, return_inverse=True) for column in corners.T]
    steps = [np.diff(values).min() if len(values) > 1 else 1.0 for values, _ in axes]
    cells = np.stack([np.rint((corners[:, d] - axes[d][0][0]) / steps[d]) for d in range(len(axes))], 1).astype(int)
    ranks = torch.empty(len(scores)).scatter_(
        0, scores.argsort(descending=True, stable=True), torch.arange(len(scores), 0, -1.0)
    )
    grid = np.zeros(cells.max(axis=0) + 1, dtype=np.float32)  # 0 means no tile: ranks start at 1
    np.maximum.at(grid, tuple(cells.T), ranks.numpy())
    kept = ProbNMS(spatial_dims=grid.ndim, prob_threshold=0.0, box_size=box_size)(grid)
    index_of = {int(rank): i for i, rank in enumerate(ranks.tolist())}
    return sorted(index_of[int(rank)] for rank, *_ in kept)


def froc_values(
    false: Tensor, found: Tensor, num_bags: int, rates: Sequence[float] = RATES
) -> dict[str, float | list[float]]:
    """Compute the FROC score and curve from the :py:class:`LesionHits` of all bags, with MONAI's functions.

    MONAI's curve omits the lowest threshold, so that the only detection of a perfect model would not count; a score of
    0, which is no detection, is added for it.

    Args:
        false: scores (M,) of false detections.
        found: scores (L,) of lesions.
        num_bags: number of bags.
        rates: numbers of false detections per bag at which the sensitivity is averaged.

    Returns:
        ``score``: mean sensitivity at ``rates``, NaN without lesions or bags; ``false_per_bag`` and ``sensitivity``:
        the curve, from all detections to none.

    Example:
        >>> froc = froc_values(torch.tensor([0.6, 0.2]), torch.tensor([0.9, 0.4]), num_bags=2)
        >>> round(froc["score"], 3), froc["false_per_bag"], froc["sensitivity"]
        (0.917, [1.0, 0.5, 0.5, 0.0, 0.0], [1.0, 1.0, 0.5, 0.5, 0.0])
    """
    if not len(found) or not num_bags:
        return {"score": float("nan"), "false_per_bag": [], "sensitivity": []}
    false_scores = np.append(false.float().cpu().numpy(), np.float32(0))
    per_bag, sensitivity = compute_froc_curve_data(false_scores, found.float().cpu().numpy(), len(found), num_bags)
    score = float(compute_froc_score(per_bag, sensitivity, tuple(rates)))
    return {"score": score, "false_per_bag": per_bag.tolist(), "sensitivity": sensitivity.tolist()}


class FROCMetric(BagIterationMetric):
    """FROC score of all bags since the last reset, including negative ones; see :py:func:`froc_values`.

    Args:
        tile_size: see :py:func:`lesion_hits`.
        spacing: see :py:func:`lesion_hits`.
        box_size: see :py:func:`lesion_hits`.
        exclude: see :py:func:`lesion_hits`.
        rates: see :py:func:`froc_values`.

    Example:
        >>> metric = FROCMetric(tile_size=0)
        >>> _ = metric([torch.tensor([[0.9, 0.0], [0.1, 2.0]])], [torch.tensor([True, False, False])])
        >>> metric.aggregate().item()
        1.0
    """

    per_instance = (True, False)

    def __init__(
        self,
        tile_size: float | Sequence[float] = 1.0,
        spacing: float | Sequence[float] = 1.0,
        box_size: int | None = None,
        exclude: Sequence[int] = (),
        rates: Sequence[float] = RATES,
    ) -> None:
        super().__init__()
        options = {"tile_size": tile_size, "spacing": spacing, "box_size": box_size, "exclude": tuple(exclude)}
        self._hits: Callable[..., LesionHits] = partial(lesion_hits, **options)  # type: ignore[arg-type]
        self.rates = tuple(rates)

    def _rows(self, y_pred: Any, y: Any, **kwargs: Any) -> list[Tensor]:
        """Return the rows of each bag, one per detection and lesion."""
        if y is None or len(y) != len(y_pred):
            raise ValueError(f"`y` must be {len(y_pred)} masks of lesions, got {None if y is None else len(y)}.")
        return [self._compute_tensor(*bag) for bag in zip(y_pred, y, strict=True)]

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return rows (R, 2) of kind and score for a bag (N, A + D) of scores and coordinates."""
        dims = torch.as_tensor(y).ndim
        if y_pred.ndim != 2 or y_pred.shape[1] <= dims:
            raise ValueError(f"`y_pred` must be (N, A + {dims}), scores and coordinates, got {tuple(y_pred.shape)}.")
        hits = self._hits(y_pred[:, :-dims], y_pred[:, -dims:], torch.as_tensor(y))
        kinds = ((FALSE, hits.false), (FOUND, hits.found), (BAG, torch.zeros(1)))
        return torch.cat([torch.stack([torch.full_like(s, kind), s], dim=1) for kind, s in kinds]).double()

    def curve(self) -> dict[str, float | list[float]]:
        """Compute score and curve, see :py:func:`froc_values`."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("`y_pred` must be given before the curve is computed, got none.")
        kind, score = rows.unbind(dim=1)
        return froc_values(score[kind == FALSE], score[kind == FOUND], int((kind == BAG).sum()), self.rates)

    def aggregate(self) -> Tensor:
        """Compute the FROC score as a float64 tensor ()."""
        return torch.tensor(self.curve()["score"], dtype=torch.float64)
