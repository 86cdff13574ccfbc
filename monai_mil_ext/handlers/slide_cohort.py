"""An inference on many slides that goes on when one fails, and goes on where it was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.transforms.bag_or_status import DONE
from monai_mil_ext.utils import RESEARCH_USE

from .cohort_results import CASE, CohortResults
from .slide_results import SlideResultsSaver

__all__ = ["SlideCohortResults"]


class SlideCohortResults(CohortResults):
    """Writes the files of every slide, ``results.csv`` with a row for each, those without an answer too, and a report.

    As :py:class:`CohortResults` does for scans: what can't be read or written for its own fault gets a row with the
    reason, without the path; the files of slides that were done stay, and a later run with the same ``settings`` of
    ``saver`` asks ``pending`` slides only.

    Args:
        saver: of each slide; it is not attached itself.
        slides: all items of the cohort, see :py:func:`monai_mil_ext.data.find_slides`.

    Raises:
        RuntimeError: by ``finish``, when all is written, if a slide got no answer.
    """

    word = "slide"

    def __init__(self, saver: SlideResultsSaver, slides: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(saver, slides)

    def _row(self, case: str) -> dict[str, Any]:
        answer = self._answer(case)
        row = {CASE: case, "use": RESEARCH_USE}
        if case in self._failed or answer is None:
            return {**row, "status": self._failed.get(case, "not reached")}
        first = (answer.get("top_tiles") or [{"x": "", "y": ""}])[0]
        return {
            **row,
            "status": DONE,
            "seconds": f"{self._seconds[case]:.2f}" if case in self._seconds else "",
            "num_tiles": answer["num_tiles"],
            "top_tile_x": first["x"],
            "top_tile_y": first["y"],
            "prediction": answer["prediction"],
            **{f"probability_{c}": p for c, p in enumerate(answer["probability"])},
        }
