"""Saves the answer to a scan: its probability, a score for every slice, the score volume and the picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_mil_ext.data import write_volume
from monai_mil_ext.transforms import SliceScoresToVolume
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, atomic_path, check_name, write_json
from monai_mil_ext.visualize import plot_slice_scores

__all__ = ["ScanResultsSaver"]

PER_SLICE = (BagKeys.ATTENTION, BagKeys.POSITION, BagKeys.SLICE_INDEX)


class ScanResultsSaver:
    """Writes ``<case_id>.json``, ``<case_id>_scores.nii.gz`` and ``<case_id>.png`` of every scan that an engine infers.

    It reads decollated items of one scan each: ``pred`` (C,) probabilities, ``attention`` (N,) or (N, A) whose mean
    over A is the score of a slice, ``position``, ``slice_index``, ``affine`` and ``spatial_shape`` as
    :py:class:`monai_mil_ext.transforms.SliceBagd` leaves them, the slices themselves, and a reference mask where
    there is one. Nothing else of the scan is written: no name, no date, no path.

    Args:
        output_dir: folder of the files; each is replaced as a whole.
        plane: of the slices, see :py:class:`monai_mil_ext.transforms.SliceBagd`.
        slices_key: item with the slices (N, 1, h, w) in [0, 1].
        reference_key: item with the mask (N, 1, h, w) of what should be found.
        top_k: how many slices the picture shows.

    Raises:
        ValueError: when a case id can't be a file's name.
    """

    def __init__(
        self,
        output_dir: str,
        plane: str = "axial",
        slices_key: str = "slices",
        reference_key: str = "reference",
        top_k: int = 4,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.plane = plane
        self.slices_key = slices_key
        self.reference_key = reference_key
        self.top_k = top_k
        self._to_volume = SliceScoresToVolume(plane)

    def attach(self, engine: Engine) -> None:
        """Write after every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the files of the scans of this iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            item = self._without_padding({**batch, **output})
            check_name(case_id=item[BagKeys.CASE_ID])
            self._save(item)
            engine.logger.info(f"{item[BagKeys.CASE_ID]}: written to {self.output_dir.name}; {RESEARCH_USE}")

    def _save(self, item: Mapping[str, Any]) -> None:
        case = item[BagKeys.CASE_ID]
        attention = item[BagKeys.ATTENTION].float()
        attention = attention.mean(-1) if attention.ndim == 2 else attention
        write_json(self.output_dir / f"{case}.json", self._answer(item, attention))
        geometry = (item[BagKeys.SLICE_INDEX], item[BagKeys.AFFINE], item[BagKeys.SPATIAL_SHAPE])
        volume = self._to_volume(attention, *geometry)
        write_volume(self.output_dir / f"{case}_scores.nii.gz", volume, f"attention of slices; {RESEARCH_USE}")
        reference = item.get(self.reference_key)
        figure = plot_slice_scores(
            attention.numpy(),
            item[BagKeys.POSITION].numpy(),
            item[self.slices_key][:, 0].numpy(),
            None if reference is None else reference[:, 0].numpy() > 0,
            self.top_k,
            f"{case}: probability {float(item['pred'][-1]):.2f}",
        )
        with atomic_path(self.output_dir / f"{case}.png") as temporary:
            figure.savefig(temporary, dpi=160)

    def _without_padding(self, item: Mapping[str, Any]) -> dict[str, Any]:
        per_instance = {*PER_SLICE, self.slices_key, self.reference_key}
        mask = item.get(BagKeys.MASK, slice(None))
        return {
            k: (v.detach()[mask] if k in per_instance else v.detach()).cpu() if isinstance(v, torch.Tensor) else v
            for k, v in item.items()
        }

    def _answer(self, item: Mapping[str, Any], attention: torch.Tensor) -> dict[str, Any]:
        columns = zip(
            item[BagKeys.SLICE_INDEX].tolist(), item[BagKeys.POSITION].tolist(), attention.tolist(), strict=True
        )
        slices = [{"slice_index": i, "position_mm": round(p, 3), "attention": a} for i, p, a in columns]
        return {
            "case_id": item[BagKeys.CASE_ID],
            "use": RESEARCH_USE,
            "probability": item["pred"].tolist(),
            "prediction": int(item["pred"].argmax()),
            "plane": self.plane,
            "top_slices": [int(i) for i in np.argsort(-attention.numpy(), kind="stable")[: self.top_k]],
            "slices": slices,
        }
