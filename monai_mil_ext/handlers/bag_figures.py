"""Handler that draws the attention of a few bags on TensorBoard during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from monai_mil_ext.utils import RESEARCH_USE, BagKeys, check_positive, drop_padding, format_prediction, head_mean
from monai_mil_ext.visualize import SliceDisplay, plot_slice_scores

__all__ = ["BagFigureHandler"]


class BagFigureHandler:
    """Handler that draws the attention of a few bags by ``plot_slice_scores`` during each validation.

    It reads decollated items of MONAI's evaluators: ``attention``, ``position``, ``case_id`` and, if present, ``mask``,
    ``pred``, ``instance_label``, ``slice_index``, the slices and what else
    :py:class:`monai_mil_ext.transforms.SliceBagd` adds. The step on TensorBoard is the epoch.

    Args:
        summary_writer: writer of TensorBoard.
        cases: case ids to draw; ``None`` draws the first ``max_bags`` bags, and the same ones in later epochs.
        max_bags: maximum number of bags, if ``cases`` is ``None``.
        interval: number of epochs between two drawings.
        slices_key: item with the slices (N, C, h, w), of which the middle channel is shown; without it no slice is
            shown. Values outside of [0, 1] are scaled, which the figure says.
        top_k: number of slices to show.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.

    Raises:
        ValueError: when ``max_bags``, ``interval`` or ``top_k`` is not positive, or ``pred`` are not probabilities,
            such as logits.
    """

    def __init__(
        self,
        summary_writer: Any,
        cases: Sequence[str] | None = None,
        max_bags: int = 4,
        interval: int = 1,
        slices_key: str = "slices",
        top_k: int = 4,
        task: str = "classification",
    ) -> None:
        check_positive(max_bags=max_bags, interval=interval, top_k=top_k)
        self.summary_writer = summary_writer
        self.cases = None if cases is None else [str(case) for case in cases]
        self.max_bags = max_bags
        self.interval = interval
        self.slices_key = slices_key
        self.top_k = top_k
        self.task = task
        self._chosen: list[str] = [] if self.cases is None else self.cases

    def attach(self, engine: Engine) -> None:
        """Draw at every iteration of ``engine``, an evaluator whose epoch is that of its trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the chosen bags of this iteration."""
        epoch = engine.state.epoch
        if epoch % self.interval:
            return
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = str(batch[BagKeys.CASE_ID])
            if self.cases is None and case not in self._chosen and len(self._chosen) < self.max_bags:
                self._chosen.append(case)
            if case in self._chosen:
                self.summary_writer.add_figure(f"attention/{case}", self._figure({**batch, **output}), epoch)

    def _figure(self, item: Mapping[str, Any]) -> Any:
        numbers = (BagKeys.SLICE_INDEX, BagKeys.INSTANCE_NUMBER)
        keys = (BagKeys.ATTENTION, BagKeys.POSITION, BagKeys.INSTANCE_LABEL, *numbers, self.slices_key)
        tensors = {key: drop_padding(item[key], item).detach().float().cpu() for key in keys if key in item}
        tensors[BagKeys.ATTENTION] = head_mean(tensors[BagKeys.ATTENTION])
        values = {key: tensor.numpy() for key, tensor in tensors.items()}
        order = np.argsort(values[BagKeys.POSITION], kind="stable")
        slices, labels = values.get(self.slices_key), values.get(BagKeys.INSTANCE_LABEL)
        prediction = f"{format_prediction(item['pred'], self.task)}, " if "pred" in item else ""
        display = _display({**item, **{key: values[key][order] for key in numbers if key in values}}, slices)
        if slices is not None:
            slices, display = display.fit_gray(slices[order, slices.shape[1] // 2])
        return plot_slice_scores(
            values[BagKeys.ATTENTION][order],
            values[BagKeys.POSITION][order],
            slices,
            None if labels is None else labels[order],
            self.top_k,
            f"{item[BagKeys.CASE_ID]}: {prediction}{RESEARCH_USE}",
            display=display,
        )


def _display(item: Mapping[str, Any], slices: Any) -> SliceDisplay:
    """Return what the figure shows beside the slices; without a known plane there are no letters."""
    if slices is not None and BagKeys.PLANE in item:
        return SliceDisplay.of(item, slices.shape[2:])
    return SliceDisplay(slice_index=item.get(BagKeys.SLICE_INDEX))
