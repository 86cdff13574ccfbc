"""Adding a term on attention to the loss of any MONAI trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_choice

from .score_term import ScoreTermHandler

__all__ = ["AttentionPriorHandler"]


class AttentionPriorHandler(ScoreTermHandler):
    r"""Adds ``weight * loss(attention, mask)`` to the loss of a ``SupervisedTrainer``, before its backward pass.

    .. math:: L = L_\text{bag} + \lambda \, L_\text{prior}(a, m)

    Attention is read where the network computes it, so the network stays as it is; see :py:class:`ScoreHook`. The term
    is computed in float32 with autocast off. Its value, without the weight, is put into ``engine.state.output[name]``
    in each iteration and its mean over the epoch (over all processes) into ``engine.state.metrics[name]``, where
    handlers that are attached later (``StatsHandler``, ``TensorBoardStatsHandler``) find it. With weight 0 there is no
    hook and no term at all. A schedule of the weight is state: give the handler to :py:class:`TrainingState`.

    With ``positions_key="position"`` Normal Guidance is in mm: slices are where they are, and not one step apart, which
    differs where slices were left out or sampled. :py:class:`monai_mil_ext.data.BagCollate` must pad the positions.

    Args:
        loss: takes attention (B, N, H) and the mask (B, N) or ``None``, gives a scalar; with ``positions_key`` it is
            given ``positions`` (B, N) too, by this name.
        layer: dotted path of the submodule whose output, (B, N, S) or (B, N), is read.
        kind: ``"scores"``, to be put through a softmax over the instances, or ``"attention"``, which was already.
        weight: :math:`\lambda`; :py:meth:`set_weight` changes it, as setter of a ``ParamSchedulerHandler``.
        name: of the term in the output and in the metrics.
        mask_argument: which argument of the network's ``forward`` is the mask.
        positions_key: item of the batch with the positions (B, N) of the instances; None leaves them to the loss.

    Raises:
        ValueError: when ``kind`` or the weight is not allowed; when a run starts and the network has no such ``layer``;
            when the layer's output has another shape, the layer did not fire, or ``name`` is taken; when the batch has
            no ``positions_key``.

    Example:
        >>> from monai_mil_ext.losses import NormalGuidanceLoss
        >>> handler = AttentionPriorHandler(NormalGuidanceLoss(), layer="attention")  # of MONAI's own MILModel
        >>> handler.set_weight(0.5)
        >>> handler.state_dict()
        {'weight': 0.5}
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        layer: str = "score_tap",
        kind: str = "scores",
        weight: float = 1.0,
        name: str = "attention_prior",
        mask_argument: str = "mask",
        positions_key: str | None = None,
    ) -> None:
        super().__init__(layer, weight, name, mask_argument)
        check_choice("kind", kind, ("scores", "attention"))
        self.loss = loss
        self.kind = kind
        self.positions_key = positions_key
        self._extra: dict[str, Tensor] = {}  # what else the loss is given in this iteration

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The loss of attention, in float32."""
        attention = masked_softmax(scores, mask) if self.kind == "scores" else scores
        with torch.autocast(attention.device.type, enabled=False):
            return {self.name: self.loss(attention, mask, **self._extra)}

    def _add_term(self, engine: Any) -> None:
        if self.positions_key is not None and self._hook is not None:
            self._extra = {"positions": _positions(engine.state.batch, self.positions_key)}
        super()._add_term(engine)
        self._extra = {}


def _positions(batch: Any, key: str) -> Tensor:
    if not isinstance(batch, Mapping) or key not in batch:
        got = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(f"`positions_key` must be an item of the batch ({got}), got {key!r}.")
    return torch.as_tensor(batch[key]).as_subclass(Tensor)
