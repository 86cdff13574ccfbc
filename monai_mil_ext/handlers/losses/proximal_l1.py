"""Handler that applies a proximal L1 step, which sets weights exactly to zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor

from monai_mil_ext.handlers.monai_engines import check_not_attached, check_trainer
from monai_mil_ext.utils import check_choice, check_not_negative

from .score_hook import call_after_run, unwrap_network

__all__ = ["ProximalL1Handler"]


class ProximalL1Handler:
    r"""Handler that applies the proximal step of an L1 penalty after each step of the optimizer.

    .. math:: w \leftarrow \operatorname{sign}(w) \max(|w| - \eta \lambda, 0)

    with the learning rate :math:`\eta` of the parameter in this step. Irrelevant weights become exactly zero, unlike
    with an L1 term in the loss. After an adaptive optimizer, the threshold is in units of its normalized steps.
    Accumulated iterations and steps skipped by a gradient scaler do not count.

    Args:
        weight: weight :math:`\lambda` of the penalty; 0 disables it.
        parameters: names of parameters as in ``named_parameters``; ``None`` takes all.

    Raises:
        ValueError: if the weight is not allowed; when a run starts, if the network or the optimizer has no such
            parameter.

    References:
        Parikh, Boyd, "Proximal Algorithms", Foundations and Trends in Optimization 1(3), 2014.

    Example:
        >>> from monai.engines import SupervisedTrainer
        >>> net = torch.nn.Linear(2, 1)
        >>> trainer = SupervisedTrainer("cpu", 1, [{"image": torch.zeros(1, 2), "label": torch.zeros(1, 1)}], net,
        ...     torch.optim.SGD(net.parameters(), lr=0.1), torch.nn.MSELoss(),
        ...     train_handlers=[ProximalL1Handler(100.0, ["weight"])])
        >>> trainer.run()
        >>> int(net.weight.count_nonzero())
        0
    """

    def __init__(self, weight: float, parameters: Sequence[str] | None = None) -> None:
        check_not_negative(weight=weight)
        self.weight = float(weight)
        self.parameters = None if parameters is None else tuple(parameters)
        self._penalized: list[tuple[dict[str, Any], Tensor]] = []
        self._step_hook: Any = None

    def attach(self, engine: Any) -> None:
        """Attach to a ``SupervisedTrainer``."""
        check_trainer(engine)
        check_not_attached(engine, self._start, Events.STARTED)
        engine.add_event_handler(Events.STARTED, self._start)
        call_after_run(engine, self._stop)

    def _start(self, engine: Any) -> None:
        self._stop()
        named = dict(unwrap_network(engine.network)[0].named_parameters())
        groups = [(group, p) for group in engine.optimizer.param_groups for p in group["params"]]
        owner = {p: group for group, p in groups}
        for name in named if self.parameters is None else self.parameters:
            check_choice("parameters", name, named)
            if named[name] in owner:
                self._penalized.append((owner[named[name]], named[name]))
            elif self.parameters is not None:
                raise ValueError(f"`parameters` must be among the optimizer's, got {name!r}.")
        if self.weight:
            self._step_hook = engine.optimizer.register_step_post_hook(self._shrink)

    def _stop(self) -> None:
        self._penalized = []
        if self._step_hook is not None:
            self._step_hook.remove()
            self._step_hook = None

    @torch.no_grad()
    def _shrink(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        overflow = getattr(optimizer, "found_inf", None)  # a fused optimizer is called even if the step is skipped
        for group, p in self._penalized:
            shrunk = torch.nn.functional.softshrink(p, float(group["lr"]) * self.weight)
            p.copy_(shrunk if overflow is None else torch.where(overflow.to(p.device) > 0, p, shrunk))
