"""Adding the loss of a network's branches to that of any MONAI trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.utils import CommonKeys
from torch import Tensor

from monai_mil_ext.losses import BranchLoss
from monai_mil_ext.utils import check_choice

from .score_hook import RecordedScores
from .score_term import ScoreTermHandler

__all__ = ["BranchLossHandler"]


class BranchLossHandler(ScoreTermHandler):
    r"""Adds ``weight`` times the mean loss of K branches to that of a ``SupervisedTrainer``, before its backward pass.

    .. math:: L = \ell(\text{logits}, \text{label}) + \lambda \, \frac1K \sum_k \ell(y_{\cdot k}, \text{label})

    Branch logits (B, K, C) are read where the network makes them; see :py:class:`BranchLoss` and
    :py:class:`ScoreHook`. With an :py:class:`AttentionPriorHandler` of :py:class:`BranchDiversityLoss` at ``mask_top``
    this is the whole loss of :py:class:`ACMIL`, whose paper gives each of the three terms weight 1, and leaves this one
    out where there is one branch. The value without the weight goes where that of :py:class:`AttentionPriorHandler`
    does.

    Under DDP leave ``find_unused_parameters`` off, as it looks for the branches behind the logits, where they are not;
    with weight 0 turn it on.

    Args:
        loss: of logits (B, C) against the label; ``None`` for the trainer's own.
        layer: dotted path of the submodule whose output, (B, K, C), is read.
        weight: :math:`\lambda`; :py:meth:`set_weight` changes it, as setter of a ``ParamSchedulerHandler``.
        name: of the term in the output and in the metrics.
        label_key: of the label in the trainer's output.

    Raises:
        ValueError: when the weight is not allowed; when a run starts and the network has no such ``layer``; when the
            layer's output has another shape, the layer did not fire, ``name`` is taken or there is no such label.

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
        self._term: Callable[[Tensor], Tensor] | None = None  # only while a term is added

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The loss of branch logits (B, K, C), in float32."""
        return {} if self._term is None else {self.name: self._term(scores)}

    def _add_term(self, engine: Any) -> None:
        if self._hook is None:
            return
        output = engine.state.output
        check_choice("label_key", str(self.label_key), map(str, output))
        label = output[self.label_key]
        if isinstance(label, Tensor):
            label = label.as_subclass(Tensor)  # a MetaTensor in would come out as the loss
        loss = BranchLoss(engine.loss_function if self.loss is None else self.loss)
        self._term = lambda logits: loss(logits, label)
        try:
            super()._add_term(engine)
        finally:
            self._term = None

    def _checked(self, recorded: RecordedScores) -> RecordedScores:
        """Branch logits as a plain tensor; the mask is of instances, which they no longer have."""
        logits = recorded.output
        if not isinstance(logits, Tensor) or logits.ndim != 3:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"`layer` must put out a tensor (B, K, C), got {got} from {self.layer!r}.")
        return RecordedScores(logits.as_subclass(Tensor), None)
