"""Saves the answer to a slide: its verdict, and where the network looked, as viewers open it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_mil_ext.data import SlideFile, SlideTiles, write_heatmap_tiff, write_tile_geojson
from monai_mil_ext.transforms import TileScoresToHeatmap
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, check_choice, check_name, check_positive, write_json
from monai_mil_ext.visualize import write_slide_overlay, write_tile_montage

__all__ = ["SlideResultsSaver"]

PREDICTED = "predicted"
STEPS = 4  # pixels of the map along a tile
SHOWN = 224  # pixels of a tile in the picture
THUMBNAIL = 1024
VERDICT = "verdict.json"
FILES = {"geojson": ".geojson", "heatmap": ".tif", "overlay": ".png", "tiles": "_tiles.png"}


class SlideResultsSaver:
    """Writes the files of one slide into ``<output_dir>/<case_id>``, all of them from one item of one forward pass.

    ======================= ==============================================================================
    ``verdict.json``        probabilities, tiles, what the map shows and how it is scaled; it comes last
    ``<case_id>.geojson``   every tile with its attention, for QuPath
    ``<case_id>.tif``       the map as a pyramid in the geometry of the slide
    ``<case_id>.png``       the map over a thumbnail; where there are pixels
    ``<case_id>_tiles.png`` the tiles of the highest and the lowest attention; where there are pixels
    ======================= ==============================================================================

    An item has ``pred`` (C,) probabilities, ``attention`` (N,) or (N, A), and what
    :py:class:`monai_mil_ext.transforms.SlideFeaturesd` puts beside the features; without coordinates in pixels of level
    0 there is the verdict alone, and it says why. The files hold the case id, and no name or path of a slide.

    Args:
        output_dir: the folder; what an earlier run wrote for a slide goes.
        class_names: of the C classes, for the verdict.
        head: which of the A weights of a tile is shown: a number (of a head, or of a class where attention is per
            class), ``"predicted"`` for that of the predicted class, or None for the mean over all.
        scaling: of the map: ``"percentile"`` of the tiles, ``"ratio"`` to uniform, or ``"none"``.
        downsample: pixels of level 0 to one of the map; None for a quarter of a tile.
        num_tiles: how many tiles of either kind are named and shown.
        settings: fingerprint of network and preprocessing, for the verdict.
        reader: of the slide, see :py:class:`monai_mil_ext.data.SlideFile`.

    Raises:
        ValueError: when an option is not allowed, or an item can't be written: a head that is not there, a damaged
            slide.
    """

    def __init__(
        self,
        output_dir: str,
        class_names: Sequence[str] | None = None,
        head: int | str | None = None,
        scaling: str = "percentile",
        downsample: float | None = None,
        num_tiles: int = 8,
        settings: str | None = None,
        reader: str = "openslide",
    ) -> None:
        TileScoresToHeatmap(1.0 if downsample is None else downsample, scaling)  # which checks both
        check_positive(num_tiles=num_tiles)
        if isinstance(head, str):
            check_choice("head", head, [PREDICTED])
        self.output_dir = Path(output_dir)
        self.class_names = None if class_names is None else tuple(map(str, class_names))
        self.head = head
        self.scaling = scaling
        self.downsample = downsample
        self.num_tiles = num_tiles
        self.settings = settings
        self.reader = reader

    def answer_file(self, case_id: str) -> Path:
        """Where the verdict on a slide is; where it is, all its other files are."""
        return self.output_dir / case_id / VERDICT

    def save(self, data: Mapping[str, Any]) -> None:
        """Write the files of one slide."""
        case = data[BagKeys.CASE_ID]
        check_name(case_id=case)
        folder = self.output_dir / case
        for name in (VERDICT, *(case + ending for ending in FILES.values())):
            (folder / name).unlink(missing_ok=True)
        item = _without_padding(data)
        attention = self._chosen(item)
        verdict = self._verdict(item, attention)
        missing = _not_placed(item)
        if missing:
            verdict["map"] = {"missing": missing}
        else:
            verdict.update(self._save_places(folder, item, attention))
        write_json(folder / VERDICT, verdict)

    def _save_places(self, folder: Path, item: Mapping[str, Any], attention: Tensor) -> dict[str, Any]:
        case, coords, edge = item[BagKeys.CASE_ID], item["coords"], float(item["tile_size"])
        shape = item.get(BagKeys.SPATIAL_SHAPE)
        shape = (coords + edge).ceil().amax(0).long() if shape is None else shape
        slide_mpp = None if item.get("slide_mpp") is None else float(item["slide_mpp"])
        downsample = edge / STEPS if self.downsample is None else self.downsample
        to_map = TileScoresToHeatmap(downsample, self.scaling)
        heat = to_map(attention, coords, edge, shape, slide_mpp)
        write_tile_geojson(folder, case, attention, coords, edge)
        write_heatmap_tiff(folder, case, heat)
        top, bottom = _extremes(attention, self.num_tiles)
        if "source" in item:
            self._save_pictures(folder, item, heat, attention, (top, bottom))
        told = {"attention": self._head(item), "scaling": self.scaling, "downsample": downsample}
        sizes = {"tile_size": edge, "slide_mpp": slide_mpp, "slide_size": [int(side) for side in shape]}
        return {
            "map": told,
            **sizes,
            "top_tiles": _named(item, attention, top),
            "bottom_tiles": _named(item, attention, bottom),
        }

    def _save_pictures(
        self, folder: Path, item: Mapping[str, Any], heat: MetaTensor, attention: Tensor, ends: tuple[Tensor, Tensor]
    ) -> None:
        case, source, edge = item[BagKeys.CASE_ID], item["source"], float(item["tile_size"])
        write_slide_overlay(folder, case, SlideFile(source, self.reader).thumbnail(THUMBNAIL), heat)
        tiles = SlideTiles(source, item["coords"].long(), SHOWN, edge / SHOWN, self.reader, torch.uint8)
        images = [tiles[end.numpy()][:].permute(0, 2, 3, 1).numpy() for end in ends]
        scores = [attention[end].double().numpy() for end in ends]
        write_tile_montage(folder, case, *images, *scores)

    def _chosen(self, item: Mapping[str, Any]) -> Tensor:
        """The weight (N,) of each tile that is shown."""
        weights: Tensor = item[BagKeys.ATTENTION].float()
        weights = weights[:, None] if weights.ndim == 1 else weights
        if self.head is None:
            return weights.mean(1)
        number, count = self._head(item), weights.shape[1]
        if self.head == PREDICTED and count != len(item["pred"]):
            raise ValueError(f"`head` 'predicted' must have attention for each of the classes, got {count} weights.")
        if not isinstance(number, int) or not 0 <= number < count:
            raise ValueError(f"`head` must be from 0 to {count - 1}, got {number!r}.")
        return weights[:, number]

    def _head(self, item: Mapping[str, Any]) -> int | str:
        if self.head is None:
            return "mean"
        return int(item["pred"].argmax()) if self.head == PREDICTED else self.head

    def _verdict(self, item: Mapping[str, Any], attention: Tensor) -> dict[str, Any]:
        predicted = int(item["pred"].argmax())
        names = self.class_names
        if names is not None and len(names) != len(item["pred"]):
            raise ValueError(f"`class_names` must be one for each of {len(item['pred'])} classes, got {list(names)}.")
        return {
            "case_id": item[BagKeys.CASE_ID],
            "use": RESEARCH_USE,
            **({} if self.settings is None else {"settings": self.settings}),
            "probability": item["pred"].tolist(),
            **({} if names is None else {"class_names": list(names), "predicted_class": names[predicted]}),
            "prediction": predicted,
            "num_tiles": len(attention),
        }


def _without_padding(data: Mapping[str, Any]) -> dict[str, Any]:
    mask = data.get(BagKeys.MASK, slice(None))
    item = {k: v.detach() if isinstance(v, Tensor) else v for k, v in data.items()}
    item.update({k: item[k][mask] for k in (BagKeys.ATTENTION, "coords") if k in item})
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in item.items()}


def _not_placed(item: Mapping[str, Any]) -> str:
    """Why tiles can't be put on the slide; empty where they can."""
    if "coords" not in item or "tile_size" not in item:
        return "the features come without coordinates, or without the size of a tile"
    unit = item.get("unit")
    return "" if unit == "px" else f"the unit of the coordinates is {unit!r}, and `slide_mpp` is not known"


def _extremes(attention: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places of the highest weights, highest first, and of the lowest, lowest first; none is in both."""
    order = attention.argsort(descending=True, stable=True)
    top = order[:count]
    return top, order[len(top) :].flip(0)[:count]


def _named(item: Mapping[str, Any], attention: Tensor, places: Tensor) -> list[dict[str, Any]]:
    corners = item["coords"][places].tolist()
    return [
        {"x": x, "y": y, "attention": weight, "ratio": weight * len(attention)}
        for (x, y), weight in zip(corners, attention[places].tolist(), strict=True)
    ]
