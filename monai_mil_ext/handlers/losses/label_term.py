"""Base class of handlers whose term also needs the label."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from monai.utils import CommonKeys
from torch import Tensor

from monai_mil_ext.utils import check_choice

from .auxiliary_loss import AuxiliaryLossHandler, plain_tensor
from .score_hook import RecordedScores

__all__ = ["LabelTermHandler"]


class LabelTermHandler(AuxiliaryLossHandler):
    """Base class of handlers that add ``weight`` times a loss of a layer's output and the label to a trainer's loss.

    Args:
        layer: dotted path of the submodule whose output is read.
        weight: weight of the term.
        name: name of the term in the output and in the metrics.
        label_key: key of the label in the trainer's output.

    Raises:
        ValueError: see :py:class:`AuxiliaryLossHandler`; in a run, if there is no such label, or the output has another
            number of axes.
    """

    shape = ""  # of the output of the layer, in messages

    def __init__(self, layer: str, weight: float, name: str, label_key: str = CommonKeys.LABEL) -> None:
        super().__init__(layer, weight, name, mask_argument="mask")
        self.label_key = label_key
        self._engine: Any = None  # set only while the term is computed

    @abstractmethod
    def term(self, output: Tensor, label: Any, mask: Tensor | None, loss_function: Any) -> Tensor:
        """Compute the term from the output of the layer, the label, the mask of the bags and the trainer's loss."""

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Compute the term in float32."""
        if self._engine is None:
            return {}
        label = self._engine.state.output[self.label_key]
        if isinstance(label, Tensor):
            label = plain_tensor(label)  # a MetaTensor would make the loss a MetaTensor
        return {self.name: self.term(scores, label, mask, self._engine.loss_function)}

    def _add_term(self, engine: Any) -> None:
        if self._hook is None:
            return
        check_choice("label_key", str(self.label_key), map(str, engine.state.output))
        self._engine = engine
        try:
            super()._add_term(engine)
        finally:
            self._engine = None

    def _checked(self, recorded: RecordedScores) -> RecordedScores:
        """Return output and mask as plain tensors."""
        output, mask = recorded.output, recorded.mask
        if not isinstance(output, Tensor) or output.ndim != self.shape.count(",") + 1:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"`layer` must put out a tensor {self.shape}, got {got} from {self.layer!r}.")
        return RecordedScores(plain_tensor(output), None if mask is None else plain_tensor(mask))
