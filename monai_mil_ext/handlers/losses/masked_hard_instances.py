"""Handler that hides instances from the network it trains, as masked hard instance mining (MHIM) does."""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive_number

from .auxiliary_loss import plain_tensor
from .ema_teacher import EMATeacher
from .hidden_instances import HiddenInstances
from .score_hook import find_layer, mask_position, unwrap_network
from .teacher_handler import TeacherHandler

__all__ = ["MaskedHardInstanceHandler"]


class MaskedHardInstanceHandler(TeacherHandler):
    r"""Handler that trains any attention network on what remains when a teacher has hidden the easy instances (MHIM).

    In each step, the teacher, an average of the network (:py:class:`EMATeacher`), sees the whole bags; by its scores,
    :py:class:`HiddenInstances` chooses what the network does not see. The embedding of what remains is kept close to
    that of the whole bag:

    .. math::
        L = L_\text{bag} + \alpha L_\text{con}, \quad
        L_\text{con} = -\sum_e \operatorname{softmax}(z' / \tau)_e \log \operatorname{softmax}(z)_e

    with the embedding z of the network and :math:`z'` of the teacher. :math:`L_\text{con}` is never 0: it is at least
    the entropy of the teacher's softmax. The fraction of the highest scores decreases to 0 in the course of the run as
    a cosine, unless ``decay`` is False. Evaluation does not change: nothing is hidden, and there is no teacher.

    A network with a mask gets one without the hidden instances, also if it was called without a mask. In one without
    (MONAI's ``MILModel``), the scores of hidden instances become minus infinity, which removes them from the attention,
    but not from what a transformer before it (``att_trans``) has computed.

    The value is logged as in :py:class:`AttentionPriorHandler`, together with the fraction of instances that are hidden
    (``_hidden``). The published teacher starts from a network that was trained without this handler: load its weights
    into the network before the run. The handler is for networks that are not compiled.

    Args:
        hide: choice of the hidden instances.
        weight: weight :math:`\alpha`; with 0 there is no term, but instances are hidden, and the network needs no
            ``embedding_layer``: it may classify each instance.
        momentum: momentum m of the teacher.
        cosine_momentum: whether the momentum increases to 1 in the course of the run.
        decay: whether ``hide.high`` decreases to 0.
        temperature: temperature :math:`\tau` of the teacher.
        layer: dotted path of the submodule whose output is the scores (B, N, S) or (B, N) before the softmax.
        embedding_layer: dotted path of the classifier, whose input is the embedding of a bag: ``"classifier"`` of
            ``QGMIL``, ``"net.classify"`` of a network around another.
        name: name of the term in the output and in the metrics.
        mask_argument: argument of the network's ``forward`` that is the mask.

    Raises:
        ValueError: if an option is not allowed, or as in :py:class:`TeacherHandler`; when a run starts, if the network
            is compiled or has no such layers; in a run, if one of them is not called, or the classifier is one of
            instances.

    References:
        Tang et al., "Multiple Instance Learning Framework with Masked Hard Instance Mining for Whole Slide Image
        Classification", arXiv:2307.15254. The published teacher keeps its dropout, so that its ranking changes from
        call to call; this one does not.

    Example:
        >>> MaskedHardInstanceHandler(layer="attention", embedding_layer="myfc").state_dict()  # of MONAI's MILModel
        {'weight': 0.1, 'steps': 0, 'teacher': None}
    """

    def __init__(
        self,
        hide: HiddenInstances | None = None,
        weight: float = 0.1,
        momentum: float = 0.9999,
        cosine_momentum: bool = False,
        decay: bool = True,
        temperature: float = 0.1,
        layer: str = "score_tap",
        embedding_layer: str = "classify",
        name: str = "masked_consistency",
        mask_argument: str = "mask",
    ) -> None:
        super().__init__(layer, weight, name, mask_argument, momentum)
        check_positive_number(temperature=temperature)
        self.hide = HiddenInstances() if hide is None else hide
        self.cosine_momentum = cosine_momentum
        self.decay = decay
        self.temperature = temperature
        self.embedding_layer = embedding_layer
        self._progress = 0.0  # fraction of the run that is over
        self._handles: list[Any] = []
        self._embedding_layer: str | None = embedding_layer
        self._hidden: Tensor | None = None  # of the forward pass that runs or was last
        self._embeddings: tuple[Any, Any] = (None, None)  # of the teacher and of the network
        self._inside = False
        self._is_checked = False  # whether the embedding is known to be that of a bag
        self._takes_mask = True
        self._mask_index: int | None = None

    def make_teacher(self, network: nn.Module) -> EMATeacher:
        """Return a new teacher of the network."""
        return EMATeacher(network, self.layer, embedding_layer=self._embedding_layer)

    def next_momentum(self) -> float:
        """Return the momentum of this step."""
        return 1 + (self.momentum - 1) * self._cosine() if self.cosine_momentum else self.momentum

    def attach(self, engine: Any) -> None:
        """Attach to a ``SupervisedTrainer``."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_STARTED, self._note_progress)

    def values(self, scores: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Compute the consistency of the embeddings in float32 and the fraction of hidden instances."""
        teacher, student = self._embeddings
        if teacher is None or student is None or self._hidden is None:
            raise ValueError(
                f"`embedding_layer` must be called in every forward pass, got nothing from {self.embedding_layer!r}."
            )
        with torch.autocast(student.device.type, enabled=False):
            target, z = (_flat(value) for value in (teacher, student))
            each = -(torch.softmax(target / self.temperature, 1) * torch.log_softmax(z, 1)).sum(1)
        valid = self._hidden.numel() if mask is None else (mask | self._hidden).sum()
        return {self.name: each.mean(), f"{self.name}_hidden": self._hidden.sum() / valid}

    def _cosine(self) -> float:
        return (1 + math.cos(math.pi * self._progress)) / 2

    def _note_progress(self, engine: Any) -> None:
        state = engine.state
        self._progress = (state.iteration - 1) / (state.max_epochs * state.epoch_length)

    def _start(self, engine: Any) -> None:
        super()._start(engine)
        net, compiled = unwrap_network(engine.network)
        if compiled:
            raise ValueError("`network` must not be compiled, since its mask changes in each step.")
        has_classifier = self.embedding_layer in dict(net.named_modules())
        self._embedding_layer = self.embedding_layer if self.weight or has_classifier else None
        attend = find_layer(net, self.layer)
        self._handles = [
            # before the hooks of other handlers, which then see the mask of the network
            net.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True),
            net.register_forward_hook(self._leave, always_call=True),
        ]
        if self._embedding_layer is not None:
            classifier = find_layer(net, self._embedding_layer, "embedding_layer")
            self._handles.append(classifier.register_forward_pre_hook(self._record_embedding))
        self._mask_index, self._takes_mask = mask_position(net, self.mask_argument)
        if not self._takes_mask:
            self._handles.append(attend.register_forward_hook(self._hide_scores))

    def _stop(self) -> None:
        super()._stop()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._hidden, self._embeddings, self._inside = None, (None, None), False

    def _enter(self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask the teacher what to hide, and replace the mask of the call."""
        self._inside = net.training and torch.is_grad_enabled() and self._teacher is not None
        if not self._inside or self._teacher is None:
            return None
        scores, embedding = self._teacher.scores_and_embedding(*args, **kwargs)
        scores = self._plain(scores)
        self._check_embedding(self._teacher, scores, embedding, args, kwargs)
        index = self._mask_index
        is_positional = index is not None and index < len(args)
        mask = args[index] if is_positional and index is not None else kwargs.get(self.mask_argument)
        valid = torch.ones_like(scores[..., 0], dtype=torch.bool) if mask is None else plain_tensor(mask)
        self._hidden = self.hide.scaled(self._cosine() if self.decay else 1.0)(scores, valid)
        self._embeddings = (embedding, None)
        if not self.hide.hides_any or not self._takes_mask:
            return None
        if is_positional and index is not None:
            return (*args[:index], valid & ~self._hidden, *args[index + 1 :]), kwargs
        return args, {**kwargs, self.mask_argument: valid & ~self._hidden}

    def _check_embedding(
        self, teacher: EMATeacher, scores: Tensor, embedding: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Refuse, once, a layer whose input has a row for each instance: padding and hidden ones would be compared."""
        if self._is_checked or not self.weight or embedding is None or scores.shape[1] < 2:
            return
        first = [_first_instance(value, scores.shape[:2]) for value in args]
        named = {key: _first_instance(value, scores.shape[:2]) for key, value in kwargs.items()}
        _, alone = teacher.scores_and_embedding(*first, **named)
        if alone.shape != embedding.shape:
            raise ValueError(
                f"`embedding_layer` must be a classifier of bags, whose input is of one size for all bags, got "
                f"{tuple(embedding.shape)} for {scores.shape[1]} instances and {tuple(alone.shape)} for one, from "
                f"{self.embedding_layer!r}; with weight 0 there is no term."
            )
        self._is_checked = True

    def _hide_scores(self, _layer: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not self._inside or self._hidden is None or not self.hide.hides_any:
            return None
        hidden = self._hidden if output.ndim == 2 else self._hidden.unsqueeze(-1)
        return output.masked_fill(hidden, float("-inf"))

    def _record_embedding(self, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        teacher, student = self._embeddings
        if self._inside and student is None:
            self._embeddings = (teacher, args[0])

    def _leave(self, _net: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        self._inside = False


def _first_instance(value: Any, shape: torch.Size) -> Any:
    """Return the first instance of each bag of an argument (B, N, ...), and all others unchanged."""
    return value[:, :1] if isinstance(value, Tensor) and value.shape[:2] == shape else value


def _flat(embedding: Tensor) -> Tensor:
    """Return embeddings (B, ...) as (B, E) in float32, or float64."""
    values = plain_tensor(embedding).flatten(1)
    return values.to(torch.promote_types(values.dtype, torch.float32))
