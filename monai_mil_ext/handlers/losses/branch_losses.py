"""Handler that adds the loss of a network's branches to the loss of a MONAI trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.utils import CommonKeys
from torch import Tensor

from monai_mil_ext.losses import BranchLoss
from monai_mil_ext.utils import check_choice

from .auxiliary_loss import AuxiliaryLossHandler
from .score_hook import RecordedScores

__all__ = ["BranchLossHandler"]


class BranchLossHandler(AuxiliaryLossHandler):
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
        ValueError: if the weight is not allowed; when a run starts, if the network has no such ``layer``; in a run, if
            the output of the layer has another shape, the layer is not called, ``name`` is taken, or there is no such
            label.

    Example:
        >>> BranchLossHandler(weight=0.5).state_dict()
        {'weight': 0.5}
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Any], Tensor] | None = None,
        layer: str = "branch_tap",
        weight: float = 1.0,
        name: str = "branch_loss",
        label_key: str = CommonKeys.LABEL,
    ) -> None:
        super().__init__(layer, weight, name, mask_argument="mask")
        self.loss = loss
        self.label_key = label_key
        self._term: Callable[[Tensor], Tensor] | None = None  # set only while the term is computed

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Compute the loss of branch logits (B, K, C) in float32."""
        return {} if self._term is None else {self.name: self._term(scores)}

    def _add_term(self, engine: Any) -> None:
        if self._hook is None:
            return
        output = engine.state.output
        check_choice("label_key", str(self.label_key), map(str, output))
        label = output[self.label_key]
        if isinstance(label, Tensor):
            label = label.as_subclass(Tensor)  # a MetaTensor would make the loss a MetaTensor
        loss = BranchLoss(engine.loss_function if self.loss is None else self.loss)
        self._term = lambda logits: loss(logits, label)
        try:
            super()._add_term(engine)
        finally:
            self._term = None

    def _checked(self, recorded: RecordedScores) -> RecordedScores:
        """Return branch logits as a plain tensor, without mask, since they have no instance axis."""
        logits = recorded.output
        if not isinstance(logits, Tensor) or logits.ndim != 3:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"`layer` must put out a tensor (B, K, C), got {got} from {self.layer!r}.")
        return RecordedScores(logits.as_subclass(Tensor), None)
