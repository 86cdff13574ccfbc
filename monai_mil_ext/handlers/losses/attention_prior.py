"""Handler that adds a prior on attention to the loss of a MONAI trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_choice, check_positions, without_autocast

from .auxiliary_loss import AuxiliaryLossHandler

__all__ = ["AttentionPriorHandler"]


class AttentionPriorHandler(AuxiliaryLossHandler):
    r"""Handler that adds ``weight * loss(attention, mask)`` to the loss of a ``SupervisedTrainer``.

    .. math:: L = L_\text{bag} + \lambda \, L_\text{prior}(a, m)

    A forward hook reads attention inside the network, which needs no change; see :py:class:`ScoreHook`. The term is
    computed in float32 with autocast disabled and is added before the backward pass. Its value without the weight is
    stored in ``engine.state.output[name]`` in each iteration, and its mean over the epoch (over all processes) in
    ``engine.state.metrics[name]`` for handlers that are attached later (``StatsHandler``,
    ``TensorBoardStatsHandler``). With weight 0 there is no hook and no term. If the weight follows a schedule, pass
    the handler to :py:class:`TrainingState` to save it.

    With ``positions_key="position"``, Normal Guidance uses positions in mm instead of slice numbers, which matters if
    slices were left out or sampled. :py:class:`monai_mil_ext.data.BagCollate` must pad the positions, with any value.
    They are checked on the device of the batch, usually the CPU, so the check doesn't wait for a GPU.

    Args:
        loss: function of attention (B, N, H) and mask (B, N) or ``None`` that returns a scalar; with
            ``positions_key`` it also receives ``positions`` (B, N) as a keyword argument.
        layer: dotted path of the submodule whose output is read: (B, N, S) or (B, N).
        kind: ``"scores"`` for outputs before the softmax over instances, ``"attention"`` for outputs after it.
        weight: weight :math:`\lambda`; :py:meth:`set_weight` changes it, for example as the setter of a
            ``ParamSchedulerHandler``.
        name: name of the term in the output and in the metrics.
        mask_argument: argument of the network's ``forward`` that is the mask.
        positions_key: item of the batch with the positions (B, N) of the instances; None passes no positions.

    Raises:
        ValueError: if ``kind`` or the weight is not allowed; when a run starts, if the network has no such ``layer``;
            in a run, if the output of the layer has another shape, the layer is not called, ``name`` is taken, the
            batch has no ``positions_key``, or a position of a valid instance is not finite.

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
        self._extra: dict[str, Tensor] = {}  # further arguments of the loss in this iteration

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Compute the loss of attention in float32."""
        if "positions" in self._extra:
            check_positions(self._extra["positions"], scores.shape[:2], mask)
        attention = masked_softmax(scores, mask) if self.kind == "scores" else scores
        with without_autocast(attention):
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
