"""Steadying the attention of any network in any MONAI trainer by an average of its own past."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor

from monai_mil_ext.metrics import attention_divergence, attention_uniformity
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_positive

from .score_anchor import ScoreAnchor
from .score_term import ScoreTermHandler

__all__ = ["AttentionAnchorHandler"]

PINNED = 0.995  # share of the largest entropy above which attention has chosen nothing


class AttentionAnchorHandler(ScoreTermHandler):
    r"""Adds ``beta * loss(scores, anchor scores, mask)`` to the loss of a ``SupervisedTrainer``.

    .. math:: L = L_\text{bag} + \beta \, L_\text{anchor}(z, z', m), \quad \theta' \leftarrow m\theta' + (1 - m)\theta

    The anchor is a copy of the network, taken when the first run starts, that sees what the network sees, in evaluation
    mode and without gradients. It moves after each step that the optimizer really takes: neither an accumulated
    iteration nor a step that a gradient scaler skips counts. It is no part of the network, whose evaluation and
    checkpoints stay as they are: give the handler to :py:class:`TrainingState` instead. A handler has one anchor, for
    one network.

    ``engine.state.output`` gets the term without beta under ``name`` and, each under ``name`` with its ending, the
    divergence of online from anchor attention (``_jsd``), the share of the largest entropy that online attention has
    (``_uniformity``) and the mean score of the anchor (``_mean_score``); ``engine.state.metrics`` gets their means over
    the epoch, and the distance of the weights (``_distance``). Too large a beta pins attention to uniform, where it is
    perfectly stable and says nothing: a warning, once, when it has been there, after a fifth of the training, for
    another tenth.

    Args:
        loss: takes scores (B, N, S), those of the anchor and the mask (B, N) or ``None``, gives a scalar.
        layer: dotted path of the submodule whose output, scores (B, N, S) or (B, N) before any softmax, is read.
        beta: :math:`\beta`; ``set_weight`` changes it. With 0 there is no hook and no term; the anchor still follows.
        momentum: m; with 1 the anchor stays where it started.
        start_step: number of steps after which the anchor starts, as a copy; there is no term before.
        every: number of steps between two moves.
        beta_warmup_steps: number of steps in which beta grows linearly to its full size.
        name: of the term in the output and in the metrics.
        mask_argument: which argument of the network's ``forward`` is the mask.
        anchor_dtype: ``torch.bfloat16`` computes the anchor's scores by autocast, at about half the cost where the
            processor has such products; its weights stay as they are. ``None`` computes them as the network's own.

    Raises:
        ValueError: when an option is not allowed, or as of :py:class:`ScoreTermHandler`.

    References:
        Ye et al., "ASMIL: Attention-Stabilized Multiple Instance Learning", arXiv:2603.06658.

    Example:
        >>> from monai_mil_ext.losses import NSFKLLoss
        >>> AttentionAnchorHandler(NSFKLLoss(), layer="attention").state_dict()  # of MONAI's own MILModel
        {'weight': 0.01, 'steps': 0, 'anchor': None}
    """

    _weight_name = "beta"

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
        super().__init__(layer, beta, name, mask_argument)
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` must be in [0, 1], got {momentum!r}.")
        check_positive(every=every)
        for option, value in {"start_step": start_step, "beta_warmup_steps": beta_warmup_steps}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"`{option}` must be an integer and not negative, got {value!r}.")
        if anchor_dtype is not None and not anchor_dtype.is_floating_point:
            raise ValueError(f"`anchor_dtype` must be a floating type or None, got {anchor_dtype}.")
        self.loss = loss
        self.anchor_dtype = anchor_dtype
        self.momentum = momentum
        self.start_step = start_step
        self.every = every
        self.beta_warmup_steps = beta_warmup_steps
        self.steps = 0  # that the optimizer took
        self._anchor: ScoreAnchor | None = None
        self._loaded: Mapping[str, Tensor] | None = None  # for an anchor that is not made yet
        self._step_hook: Any = None
        self._pinned_epochs = 0
        self._warned = False

    def attach(self, engine: Any) -> None:
        """Follow the runs of a ``SupervisedTrainer``."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_STARTED, self._make_anchor)

    def weight_now(self) -> float:
        """Beta, or the part of it that warming up has reached."""
        return self.weight * min(1.0, (self.steps + 1) / max(1, self.beta_warmup_steps))

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The loss of scores against those of the anchor, in float32, and what to log; nothing before it starts."""
        if self.steps < self.start_step or self._hook is None or self._anchor is None:
            return {}
        args, kwargs = self._hook.pop_call()
        anchor_scores = self._plain(self._anchor.scores(*args, **kwargs))
        with torch.autocast(scores.device.type, enabled=False):
            term = self.loss(scores, anchor_scores, mask)
            return {self.name: term, **self._log(scores.detach(), anchor_scores, mask)}

    def state_dict(self) -> dict[str, Any]:
        """Beta, the number of steps and the anchor's weights."""
        anchor = self._loaded if self._anchor is None else self._anchor.state_dict()
        return super().state_dict() | {"steps": self.steps, "anchor": anchor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :py:meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.steps = state["steps"]
        self._loaded = state["anchor"]
        self._load_anchor()

    def _start(self, engine: Any) -> None:
        super()._start(engine)
        self._step_hook = engine.optimizer.register_step_post_hook(self._follow)

    def _stop(self) -> None:
        super()._stop()
        if self._step_hook is not None:
            self._step_hook.remove()
            self._step_hook = None

    def _make_anchor(self, engine: Any) -> None:
        """Before the first forward, and after whatever loads a checkpoint when the run starts."""
        if self._anchor is None:
            self._anchor = ScoreAnchor(engine.network, self.layer, self.anchor_dtype)
            self._load_anchor()

    def _load_anchor(self) -> None:
        if self._anchor is not None and self._loaded is not None:
            self._anchor.load_state_dict(self._loaded)
            self._loaded = None

    def _follow(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        overflow = getattr(optimizer, "found_inf", None)  # a fused optimizer is called to skip a scaled step by itself
        if self._anchor is None or self._network is None or (overflow is not None and overflow.item()):
            return
        self.steps += 1
        since = self.steps - self.start_step
        if since >= 0 and since % self.every == 0:
            self._anchor.follow(self._network, momentum=self.momentum if since else 0.0)

    def _log(self, scores: Tensor, anchor_scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        attention, anchor = (masked_softmax(z, mask) for z in (scores, anchor_scores))
        means = [a.mean(dim=2, keepdim=True) for a in (attention, anchor)]
        uniformity = attention_uniformity(attention, mask).nanmean().nan_to_num()
        return {
            f"{self.name}_jsd": attention_divergence(*means).mean(),
            f"{self.name}_uniformity": uniformity,
            f"{self.name}_mean_score": (anchor_scores if mask is None else anchor_scores[mask]).mean(),
        }

    def _report(self, engine: Any) -> None:
        super()._report(engine)
        metrics, state = engine.state.metrics, engine.state
        metrics.pop(f"{self.name}_distance", None)
        if self.name not in metrics or self._anchor is None:
            return
        metrics[f"{self.name}_distance"] = self._anchor.distance(engine.network).item()
        self._watch(metrics[f"{self.name}_uniformity"], state.epoch, state.max_epochs)

    def _watch(self, uniformity: float, epoch: int, max_epochs: int) -> None:
        pinned = uniformity > PINNED and epoch > 0.2 * max_epochs
        self._pinned_epochs = self._pinned_epochs + 1 if pinned else 0
        if self._pinned_epochs >= 0.1 * max_epochs and pinned and not self._warned:
            self._warned = True
            warnings.warn(
                f"Attention is uniform (entropy {uniformity:.4f} of log N) after {epoch} of {max_epochs} epochs: "
                f"`beta` {self.weight} may pin it there, where its stability says nothing.",
                stacklevel=2,
            )
