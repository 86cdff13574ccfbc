"""Handler that stabilizes attention with an exponential moving average of the network as teacher."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from monai_mil_ext.metrics import attention_divergence, attention_uniformity
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.utils import check_count, check_positive, without_autocast

from .ema_teacher import EMATeacher
from .teacher_handler import TeacherHandler

__all__ = ["AttentionAnchorHandler"]

PINNED = 0.995  # normalized entropy above which attention counts as uniform


class AttentionAnchorHandler(TeacherHandler):
    r"""Handler that adds ``beta * loss(scores, anchor scores, mask)`` to the loss of a ``SupervisedTrainer``.

    .. math:: L = L_\text{bag} + \beta \, L_\text{anchor}(z, z', m), \quad \theta' \leftarrow m\theta' + (1 - m)\theta

    The anchor is a copy of the network, made when the first run starts, that processes the same batches in evaluation
    mode and without gradients. It is updated after each step that the optimizer actually takes: accumulated iterations
    and steps skipped by a gradient scaler do not count. The anchor is not part of the network, so evaluation and
    checkpoints of the network do not change; pass the handler to :py:class:`TrainingState` to save it. A handler has
    one anchor for one network.

    In each iteration, ``engine.state.output`` receives the term without beta under ``name``, and, with suffixes to
    ``name``, the divergence between online and anchor attention (``_jsd``), the normalized entropy of online attention
    (``_uniformity``) and the mean score of the anchor (``_mean_score``). ``engine.state.metrics`` receives their means
    over the epoch and the distance of the weights (``_distance``). If beta is too large, attention may become uniform,
    which is perfectly stable but meaningless. The handler warns once if attention is uniform for a tenth of the
    training, after its first fifth.

    Args:
        loss: function of scores (B, N, S), anchor scores and mask (B, N) or ``None`` that returns a scalar.
        layer: dotted path of the submodule whose output is read: scores (B, N, S) or (B, N) before the softmax.
        beta: weight :math:`\beta`; ``set_weight`` changes it. With 0 there is no hook and no term, but the anchor is
            still updated.
        momentum: momentum m; with 1 the anchor never changes.
        start_step: number of steps after which the anchor starts as a copy of the network; there is no term before.
        every: number of steps between two updates.
        beta_warmup_steps: number of steps in which beta increases linearly to its full value.
        name: name of the term in the output and in the metrics.
        mask_argument: argument of the network's ``forward`` that is the mask.
        anchor_dtype: dtype for autocast of the anchor, for example ``torch.bfloat16``, which halves its cost on
            hardware that supports it; its weights keep their dtype. ``None`` uses the precision of the network.

    Raises:
        ValueError: if an option is not allowed, or as in :py:class:`AuxiliaryLossHandler`; when a run starts, if it
            trains another network than the anchor's, or one that cannot be copied; see :py:class:`EMATeacher`.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> from monai_mil_ext.losses import NSFKLLoss
        >>> AttentionAnchorHandler(NSFKLLoss(), layer="attention").state_dict()  # of MONAI's own MILModel
        {'weight': 0.01, 'steps': 0, 'anchor': None}
    """

    _weight_name = "beta"
    role = "anchor"

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        layer: str = "score_tap",
        beta: float = 0.01,
        momentum: float = 0.999,
        start_step: int = 0,
        every: int = 1,
        beta_warmup_steps: int = 0,
        name: str = "attention_anchor",
        mask_argument: str = "mask",
        anchor_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(layer, beta, name, mask_argument, momentum)
        check_positive(every=every)
        check_count(start_step=start_step, beta_warmup_steps=beta_warmup_steps)
        if anchor_dtype is not None and not getattr(anchor_dtype, "is_floating_point", False):
            raise ValueError(f"`anchor_dtype` must be a floating type or None, got {anchor_dtype!r}.")
        self.loss = loss
        self.anchor_dtype = anchor_dtype
        self.start_step = start_step
        self.every = every
        self.beta_warmup_steps = beta_warmup_steps
        self._pinned_epochs = 0
        self._warned = False

    def make_teacher(self, network: nn.Module) -> EMATeacher:
        """Return a new anchor of the network."""
        return EMATeacher(network, self.layer, self.anchor_dtype)

    def next_momentum(self) -> float | None:
        """Return the momentum of the update after step ``self.steps``, or ``None`` for no update."""
        elapsed = self.steps - self.start_step
        if elapsed < 0 or elapsed % self.every:
            return None
        return self.momentum if elapsed else 0.0

    def effective_weight(self) -> float:
        """Return beta, or the fraction of it that the warm-up has reached."""
        return self.weight * min(1.0, (self.steps + 1) / max(1, self.beta_warmup_steps))

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Compute the loss in float32 and the logged values; empty before the start step."""
        if self.steps < self.start_step or self._hook is None or self._teacher is None:
            return {}
        args, kwargs = self._hook.pop_call()
        anchor_scores = self._plain(self._teacher.scores(*args, **kwargs))
        with without_autocast(scores):
            term = self.loss(scores, anchor_scores, mask)
            return {self.name: term, **self._log(scores.detach(), anchor_scores, mask)}

    def _log(self, scores: Tensor, anchor_scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        attention = masked_softmax(torch.cat([scores, anchor_scores], 2), mask).chunk(2, 2)
        means = [a if a.shape[2] == 1 else a.mean(dim=2, keepdim=True) for a in attention]
        uniformity = attention_uniformity(attention[0], mask)
        mean = uniformity.mean() if mask is None else uniformity.nanmean()
        return {
            f"{self.name}_jsd": attention_divergence(*means).mean(),
            f"{self.name}_uniformity": mean.nan_to_num(),
            f"{self.name}_mean_score": _masked_mean(anchor_scores, mask),
        }

    def _report(self, engine: Any) -> None:
        super()._report(engine)
        metrics, state = engine.state.metrics, engine.state
        metrics.pop(f"{self.name}_distance", None)
        if self.name not in metrics or self._teacher is None:
            return
        metrics[f"{self.name}_distance"] = self._teacher.distance(engine.network).item()
        self._warn_if_uniform(metrics[f"{self.name}_uniformity"], state.epoch, state.max_epochs)

    def _warn_if_uniform(self, uniformity: float, epoch: int, max_epochs: int) -> None:
        pinned = uniformity > PINNED and epoch > 0.2 * max_epochs
        self._pinned_epochs = self._pinned_epochs + 1 if pinned else 0
        if self._pinned_epochs >= 0.1 * max_epochs and pinned and not self._warned:
            self._warned = True
            warnings.warn(
                f"Attention is uniform (entropy {uniformity:.4f} of log N) after {epoch} of {max_epochs} epochs: "
                f"`beta` {self.weight} may be too large: uniform attention is stable but meaningless.",
                stacklevel=2,
            )


def _masked_mean(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of the scores (B, N, S) of valid instances; indexing by the mask would wait for a device."""
    if mask is None:
        return scores.mean()
    return zero_out_padding(scores, mask).sum() / (mask.sum() * scores.shape[2])
