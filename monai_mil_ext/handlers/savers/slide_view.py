"""View of a slide, for its viewer, from the item of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.data import Thumbnail
from monai_mil_ext.utils import BagKeys, drop_padding, head_mean
from monai_mil_ext.visualize import SlideView

__all__ = ["item_thumbnail", "slide_view"]

MEAN = "mean of all heads"


def item_thumbnail(item: Mapping[str, Any]) -> Thumbnail | None:
    """Return the thumbnail of an item with pixels."""
    if BagKeys.THUMBNAIL not in item:
        return None
    x, y = torch.as_tensor(item.get(BagKeys.THUMBNAIL_ORIGIN, (0.0, 0.0))).tolist()
    return Thumbnail(item[BagKeys.THUMBNAIL].numpy(), float(item[BagKeys.THUMBNAIL_DOWNSAMPLE]), (x, y))


def slide_view(item: Mapping[str, Any], class_names: Sequence[str] | None = None) -> SlideView:
    """Return what the viewer shows; the scores and coordinates of the item have no padding.

    Args:
        item: item of the results of a slide.
        class_names: names of the classes; if there are as many heads, those of the heads name them, too.
    """
    meta, mpp = item[BagKeys.HEATMAP].meta, item.get(BagKeys.SLIDE_MPP)
    has_pixels = BagKeys.TOP_TILES in item
    return SlideView(
        maps=_maps(item, class_names or ()),
        coords=item[BagKeys.COORDS].numpy(),
        tile_size=float(item[BagKeys.TILE_SIZE]),
        bounds=meta["bounds"],
        mpp=None if mpp is None else float(mpp),
        scaling=meta["scaling"],
        thumbnail=item_thumbnail(item),
        top=item[BagKeys.TOP].numpy(),
        bottom=item[BagKeys.BOTTOM].numpy(),
        pixels=(item[BagKeys.TOP_TILES].numpy(), item[BagKeys.BOTTOM_TILES].numpy()) if has_pixels else None,
    )


def _maps(item: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the scores that all results show, the mean of all heads, and each head, by name."""
    source, scores = item[BagKeys.SCORE_SOURCE], item[BagKeys.SCORES].numpy()
    attention = drop_padding(item[BagKeys.ATTENTION], item).float() if BagKeys.ATTENTION in item else None
    if attention is None or attention.ndim == 1 or attention.shape[1] < 2:
        return {MEAN if source == "mean" else f"head {source}": scores}
    count = attention.shape[1]
    # nothing tells whether as many heads as classes have one class each
    names = [
        f"head {i}" + (f" ({class_names[i]}, if heads are classes)" if count == len(class_names) else "")
        for i in range(count)
    ]
    heads = dict(zip(names, attention.unbind(1), strict=True))
    first = MEAN if source == "mean" else names[int(source)]
    rest = {name: head.numpy() for name, head in {MEAN: head_mean(attention), **heads}.items() if name != first}
    return {first: scores, **rest}
