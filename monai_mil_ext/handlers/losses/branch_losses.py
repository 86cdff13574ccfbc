"""Handler that adds the loss of a network's branches to the loss of a MONAI trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.utils import CommonKeys
from torch import Tensor

from monai_mil_ext.losses import BranchLoss

from .label_term import LabelTermHandler

__all__ = ["BranchLossHandler"]


class BranchLossHandler(LabelTermHandler):
    r"""Handler that adds ``weight`` times the mean loss of K branches to the loss of a ``SupervisedTrainer``.

    .. math:: L = \ell(\text{logits}, \text{label}) + \lambda \, \frac1K \sum_k \ell(y_{\cdot k}, \text{label})

    A forward hook reads the branch logits (B, K, C); see :py:class:`BranchLoss` and :py:class:`ScoreHook`. Together
    with an :py:class:`AttentionPriorHandler` of :py:class:`BranchDiversityLoss` at ``mask_top``, this is the complete
    loss of :py:class:`ACMIL`, whose paper gives each of the three terms weight 1 and omits this one for a single
    branch. The value is logged as in :py:class:`AttentionPriorHandler`.

    With DDP, leave ``find_unused_parameters`` off: it follows the graph of the logits, which does not contain the
    branches. With weight 0, turn it on.

    Args:
        loss: loss of logits (B, C) and label; ``None`` uses that of the trainer.
        layer: dotted path of the submodule whose output (B, K, C) is read.
        weight: weight :math:`\lambda`; :py:meth:`set_weight` changes it, for example as the setter of a
            ``ParamSchedulerHandler``.
        name: name of the term in the output and in the metrics.
        label_key: key of the label in the trainer's output.

    Raises:
        ValueError: see :py:class:`AttentionPriorHandler`; in a run, if there is no such label.

    Example:
        >>> BranchLossHandler(weight=0.5).state_dict()
        {'weight': 0.5}
    """

    shape = "(B, K, C)"

    def __init__(
        self,
        loss: Callable[[Tensor, Any], Tensor] | None = None,
        layer: str = "branch_tap",
        weight: float = 1.0,
        name: str = "branch_loss",
        label_key: str = CommonKeys.LABEL,
    ) -> None:
        super().__init__(layer, weight, name, label_key)
        self.loss = loss

    def term(self, output: Tensor, label: Any, mask: Tensor | None, loss_function: Any) -> Tensor:
        """Compute the loss of branch logits (B, K, C) in float32."""
        value: Tensor = BranchLoss(loss_function if self.loss is None else self.loss)(output, label)
        return value
