"""Handler that adds a loss on instances of highest and lowest attention to the loss of a MONAI trainer."""

from __future__ import annotations

from typing import Any

from monai.utils import CommonKeys
from torch import Tensor

from monai_mil_ext.losses import CLAMInstanceLoss

from .label_term import LabelTermHandler

__all__ = ["InstanceLossHandler"]


class InstanceLossHandler(LabelTermHandler):
    r"""Handler that adds ``weight`` times the instance loss of :py:class:`CLAM` to the loss of a ``SupervisedTrainer``.

    A forward hook reads the instance logits (B, G, 2k, 2); see :py:class:`CLAMInstanceLoss` and :py:class:`ScoreHook`.
    The paper weighs the loss of the bag by 0.7 and that of the instances by 0.3, hence the default. The value is logged
    as in :py:class:`AttentionPriorHandler`.

    Args:
        loss: loss of instance logits, labels and number of instances; ``None`` uses :py:class:`CLAMInstanceLoss`.
        layer: dotted path of the submodule whose output (B, G, 2k, 2) is read.
        weight: weight of the term; :py:meth:`set_weight` changes it.
        name: name of the term in the output and in the metrics.
        label_key: key of the label in the trainer's output.

    Raises:
        ValueError: see :py:class:`AttentionPriorHandler`; in a run, if there is no such label.

    Example:
        >>> round(InstanceLossHandler().weight, 3)
        0.429
    """

    shape = "(B, G, 2k, 2)"

    def __init__(
        self,
        loss: CLAMInstanceLoss | None = None,
        layer: str = "instance_tap",
        weight: float = 0.3 / 0.7,
        name: str = "instance_loss",
        label_key: str = CommonKeys.LABEL,
    ) -> None:
        super().__init__(layer, weight, name, label_key)
        self.loss = loss or CLAMInstanceLoss()

    def term(self, output: Tensor, label: Any, mask: Tensor | None, loss_function: Any) -> Tensor:
        """Compute the loss of instance logits (B, G, 2k, 2) in float32."""
        value: Tensor = self.loss(output, label, None if mask is None else mask.sum(1))
        return value
