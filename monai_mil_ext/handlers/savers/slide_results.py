"""Saver of the results of slides: the prediction, and the attention in formats that viewers open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from torch import Tensor

from monai_mil_ext.data import SlideFile, SlideFileError, write_heatmap_tiff, write_tile_geojson
from monai_mil_ext.transforms.bags.input_facts import input_facts
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, BagStatus, drop_padding, write_json
from monai_mil_ext.utils.files import remove_file
from monai_mil_ext.utils.privacy import describe_case_error
from monai_mil_ext.visualize import (
    attention_ratio,
    is_nearly_even,
    remove_viewer,
    write_slide_overlay,
    write_slide_viewer,
    write_tile_montage,
)
from monai_mil_ext.visualize.relative_attention import describe_ratio
from monai_mil_ext.visualize.slide_overlay import tile_squares

from .instance_set import IN_SET, INSTANCE_SET, set_label
from .results_saver import PREDICTION, ResultsSaver
from .slide_view import item_thumbnail, slide_view

__all__ = ["SlideResultsSaver"]

LINKS = {
    "prediction and settings (JSON)": PREDICTION,
    "tiles with their attention, for QuPath (GeoJSON)": "{}.geojson",
    "heat map as a pyramid (TIFF)": "{}.tif",
    "overlay (PNG)": "{}.png",
    "tiles (PNG)": "{}_tiles.png",
}
# of the tiles in prediction.json
TILE_COORDINATES = "pixels of level 0 of the whole slide, as OpenSlide counts; QuPath counts from geojson_origin"


class SlideResultsSaver(ResultsSaver):
    """Saver that writes a folder ``<output_dir>/<case_id>`` for every slide.

    ======================= ====================================================================================
    ``prediction.json``     probabilities, tiles, what the map shows and how it is scaled; written last
    ``<case_id>.geojson``   every tile with its attention, for QuPath, which counts from the bounds of a slide; with
                            a calibration of ``conformal.json``, whether it is in the set with a guarantee
    ``<case_id>.tif``       the map as a pyramid in the geometry of the bounds; ``_map.json`` names its model
    ``<case_id>.png``       the map over a thumbnail; for items with pixels
    ``<case_id>_tiles.png`` the tiles of the highest and the lowest attention; for items with pixels
    ``viewer/index.html``   page of the slide with the map as a layer, which opens from disk, in a folder with its files
    ======================= ====================================================================================

    It reads decollated items of one slide each: ``pred`` (C,) probabilities, ``scores`` (N,) and ``score_source`` of
    :py:class:`monai_mil_ext.transforms.InstanceScoresd`, ``top`` and ``bottom`` of
    :py:class:`monai_mil_ext.transforms.RankInstancesd`, ``heatmap`` (1, h, w) of
    :py:class:`monai_mil_ext.transforms.TileScoresToHeatmapd`, and, if present, the ``thumbnail`` and coordinates of
    :py:class:`monai_mil_ext.transforms.SlideFeaturesd` and the tiles of
    :py:class:`monai_mil_ext.transforms.ReadTilesd`. Without a heat map, only ``prediction.json`` is written,
    with the reason. ``pictures_missing``, the reason why there are no pictures of a slide that was asked for, becomes
    part of the status.

    A model with ``conformal.json`` gets an ``instance_set`` in ``prediction.json``: the tiles that include one with a
    lesion with a stated probability, with their corners; the overlay outlines them.

    Titles name the highest ratio to uniform attention. If it is below 1.5, they and ``prediction.json`` say that
    attention is nearly even.

    Args:
        output_dir: parent of the folders.
        class_names: names of the C classes, for ``prediction.json``.
        pictures: any of ``"overlay"``, ``"tiles"``, ``"tissue"``, and ``"viewer"`` (with the thumbnail) or
            ``"viewer-full"`` (with all pixels of the slide, as a pyramid), see
            :py:func:`monai_mil_ext.visualize.write_slide_viewer`. ``"tissue"`` is kept, but written by
            :py:func:`monai_mil_ext.visualize.write_tissue_previews`, so that slides without tiles have it too.
        settings: fingerprint of network and preprocessing, for ``prediction.json``.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.

    Raises:
        ValueError: when an option is not allowed, a case id can't be a file name, or ``class_names`` and classes differ
            in number.
    """

    endings = (".geojson", ".tif", "_map.json", ".png", "_tiles.png")
    choices = ("overlay", "tiles", "tissue", "viewer", "viewer-full")
    names = ("tile", "slide")

    def __init__(
        self,
        output_dir: str,
        class_names: Sequence[str] | None = None,
        pictures: Sequence[str] = ("overlay", "tiles"),
        settings: str | None = None,
        model: Mapping[str, Any] | None = None,
        task: str = "classification",
    ) -> None:
        super().__init__(output_dir, pictures, settings, model, class_names, task)

    def names_of(self, item: Mapping[str, Any]) -> tuple[str, str]:
        """Return the name of an instance and of a bag, which has one slide or all slides of a patient."""
        return ("tile", "patient") if "slide_index" in item else self.names

    def instance_set(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the set of tiles, with the ``corners`` (x, y) of slides whose tiles have coordinates."""
        entry = super().instance_set(item)
        if entry.get("indices") and BagKeys.HEATMAP in item:
            entry["corners"] = drop_padding(item[BagKeys.COORDS], item)[entry["indices"]].tolist()
        return entry

    def discard(self, case_id: str) -> None:
        """Remove the files of a case and its viewer, except for a tissue preview that this run was asked for."""
        super().discard(case_id)
        remove_viewer(self.output_dir / case_id)
        if "tissue" not in self.pictures:
            remove_file(self.output_dir / case_id / f"{case_id}_tissue.jpg")

    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        keys = (BagKeys.SCORES, BagKeys.COORDS)
        item = {**item, **{str(key): drop_padding(item[key], item) for key in keys if key in item}}
        record = {"num_tiles": len(item[BagKeys.SCORES]), **_by_slide(item)}
        if self.pictures and BagKeys.PICTURES_MISSING in item:
            record["pictures"] = {"missing": str(item[BagKeys.PICTURES_MISSING])}
        if BagKeys.HEATMAP not in item:
            return {**record, "map": {"missing": item[BagKeys.HEATMAP_MISSING]}}
        case, heatmap = item[BagKeys.CASE_ID], item[BagKeys.HEATMAP]
        about = {**self.provenance(item), **self.classes(item)}
        edge, origin, scaling = float(item[BagKeys.TILE_SIZE]), heatmap.meta["bounds"][:2], heatmap.meta["scaling"]
        scores, coords = item[BagKeys.SCORES], item[BagKeys.COORDS]
        more, label = _membership(item)
        about |= {INSTANCE_SET: label} if label else {}
        write_tile_geojson(folder, case, scores, coords, edge, "attention", about, scaling, origin, more)
        write_heatmap_tiff(folder, case, heatmap, about=about)
        write_json(folder / f"{case}_map.json", {"content": "attention of tiles", "use": RESEARCH_USE, **about})
        self._write_pictures(folder, item)
        missing = self._write_viewer(folder, item)
        return {**record, **({"viewer": {"missing": missing}} if missing else {}), **_geometry(item, heatmap)}

    def status(self, record: Mapping[str, Any]) -> str:
        """Return ``done``, and why a case has no pictures or not all pixels although its slide was asked for."""
        reasons = [(record.get(key) or {}).get("missing") for key in ("pictures", "viewer")]
        if reasons[0] is not None:
            return f"{BagStatus.DONE}; {reasons[0]}: no pictures"
        return super().status(record) if reasons[1] is None else f"{BagStatus.DONE}; {reasons[1]}"

    def _write_pictures(self, folder: Path, item: Mapping[str, Any]) -> None:
        case, note = item[BagKeys.CASE_ID], self.note(item)
        ratios = attention_ratio(item[BagKeys.SCORES])
        title = f"{case}: {self.prediction(item)}\n{describe_ratio(item[BagKeys.SCORES])}"
        thumbnail = item_thumbnail(item)
        if "overlay" in self.pictures and thumbnail is not None:
            squares = tile_squares(item.get(INSTANCE_SET, {}).get("corners", ()), float(item[BagKeys.TILE_SIZE]))
            marked = {_membership(item)[1]: squares} if len(squares) else None
            write_slide_overlay(folder, case, thumbnail, item[BagKeys.HEATMAP], title=title, note=note, marked=marked)
        if "tiles" in self.pictures and BagKeys.TOP_TILES in item:
            top, bottom = (item[key].numpy() for key in (BagKeys.TOP_TILES, BagKeys.BOTTOM_TILES))
            high, low = (ratios[item[key].numpy()] for key in (BagKeys.TOP, BagKeys.BOTTOM))
            write_tile_montage(folder, case, top, bottom, high, low, title, note)

    def _write_viewer(self, folder: Path, item: Mapping[str, Any]) -> str | None:
        """Write the viewer, if it is asked for, and return why it has no pyramid although that is asked for."""
        if not {"viewer", "viewer-full"} & set(self.pictures):
            return None
        case, view = item[BagKeys.CASE_ID], slide_view(item, self.class_names)
        named = (("model", self.note(item)), ("notes", " ".join(input_facts(item).get(BagKeys.NOTES, ()))))
        facts = {name: text for name, text in named if text}
        links = {text: name.format(case) for text, name in LINKS.items()}
        links = {text: name for text, name in links.items() if name == PREDICTION or (folder / name).is_file()}
        about: dict[str, Any] = {"title": f"{case}: {self.prediction(item)}", "facts": facts, "links": links}
        if "viewer-full" in self.pictures and view.thumbnail is not None:
            try:
                with SlideFile(item[BagKeys.SOURCE]) as slide:
                    write_slide_viewer(folder, view, **about, slide=slide)
                return None
            except SlideFileError as error:
                reason = describe_case_error(error, item, "the slide").removesuffix(".")
                write_slide_viewer(folder, view, **about)
                return f"the slide can't be shown with all pixels: {reason}"
        write_slide_viewer(folder, view, **about)
        return None


def _by_slide(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of tiles and the sum of attention of each slide of a patient, in the order of its table."""
    if "slide_index" not in item:
        return {}
    scores, index = item[BagKeys.SCORES].double().flatten(), drop_padding(item["slide_index"], item)
    slides = [index == i for i in range(int(item["slide_count"]))]
    return {"slides": [{"num_tiles": int(rows.sum()), "attention": float(scores[rows].sum())} for rows in slides]}


def _membership(item: Mapping[str, Any]) -> tuple[dict[str, list[int]], str]:
    """Return which tiles are in the set with a guarantee, as a measurement, and what the set is; or nothing."""
    entry = item.get(INSTANCE_SET, {})
    if not entry.get("indices"):
        return {}, ""
    chosen = set(entry["indices"])
    return {IN_SET: [int(i in chosen) for i in range(len(item[BagKeys.SCORES]))]}, set_label(entry, "tile")


def _geometry(item: Mapping[str, Any], heatmap: MetaTensor) -> dict[str, Any]:
    """Return what the map shows, and the tiles of highest and lowest attention with their places."""
    slide_mpp = item.get(BagKeys.SLIDE_MPP)
    return {
        "map": {
            "attention": item[BagKeys.SCORE_SOURCE],
            "scaling": heatmap.meta["scaling"],
            "downsample": heatmap.meta["downsample"],
            "highest_ratio": float(attention_ratio(item[BagKeys.SCORES]).max()),
            "nearly_even": is_nearly_even(item[BagKeys.SCORES]),
        },
        "tile_size": float(item[BagKeys.TILE_SIZE]),
        "slide_mpp": None if slide_mpp is None else float(slide_mpp),
        "slide_size": list(heatmap.meta["spatial_shape"]),
        "bounds": list(heatmap.meta["bounds"]),
        "geojson_origin": list(heatmap.meta["bounds"][:2]),
        "tile_coordinates": TILE_COORDINATES,
        "top_tiles": _tile_records(item, item[BagKeys.TOP]),
        "bottom_tiles": _tile_records(item, item[BagKeys.BOTTOM]),
    }


def _tile_records(item: Mapping[str, Any], indices: Tensor) -> list[dict[str, Any]]:
    scores = item[BagKeys.SCORES]
    corners, weights = item[BagKeys.COORDS][indices].tolist(), scores[indices].tolist()
    return [
        {"x": x, "y": y, "attention": weight, "ratio": weight * len(scores)}
        for (x, y), weight in zip(corners, weights, strict=True)
    ]
