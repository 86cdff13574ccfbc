"""Inferer of one case of many, whose failure becomes the status of the case; and a trial before the first case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import decollate_batch
from monai.engines import Evaluator
from torch import Tensor

from monai_mil_ext.utils import BagKeys, BagStatus
from monai_mil_ext.utils.exceptions import case_error, describe_error, root_cause

__all__ = ["InferOrStatus", "check_options"]

STATUS = str(BagKeys.STATUS)


class InferOrStatus:
    """Inferer that records an error of the network as the ``status`` of its cases, ``"failed: <reason>"``.

    Only an error that a case may cause becomes a status, such as a lack of memory for a large bag; see
    :py:func:`monai_mil_ext.utils.exceptions.case_error`.

    Args:
        inferer: inferer to call.
        engine: engine whose batch gets the status.
    """

    def __init__(self, inferer: Callable[..., Any], engine: Engine) -> None:
        self.inferer = inferer
        self.engine = engine

    @classmethod
    def wrap(cls, engine: Engine) -> None:
        """Wrap the inferer of an evaluator, once; call it when the run starts, since handlers are attached before."""
        inferer = getattr(engine, "inferer", None)
        if inferer is not None and not isinstance(inferer, cls):
            engine.inferer = cls(inferer, engine)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the output of the network, or a placeholder of zeros (B, 1)."""
        try:
            return self.inferer(inputs, network, *args, **kwargs)
        except Exception as error:
            cause = case_error(error)
            if cause is None:
                raise
            status = f"failed: {describe_error(cause)}"
            self.engine.logger.warning(f"the network {status}")
        batch, count = self.engine.state.batch, len(inputs)
        before = batch.get(STATUS, [str(BagStatus.DONE)] * count)
        batch[STATUS] = [status if old == BagStatus.DONE else old for old in before]
        return torch.zeros(count, 1)


def check_options(
    engine: Evaluator,
    postprocessing: Callable[[Any], Mapping[Any, Any]],
    instance_shapes: Mapping[str, Sequence[int]],
) -> None:
    """Check before the first case that the options of the postprocessing fit the network.

    A bag of two blank instances goes through network and postprocessing.

    Args:
        engine: evaluator of the inference.
        postprocessing: transform of the output of the network to the item that is written.
        instance_shapes: shape of one instance for each key that is collated as a bag.

    Raises:
        ValueError: when an option fits no case, such as the ``head`` of an attention that the network does not have.
    """
    batch: dict[str, Any] = {key: torch.zeros(1, 2, *shape) for key, shape in instance_shapes.items()}
    batch[str(BagKeys.MASK)] = torch.ones(1, 2, dtype=torch.bool)
    inputs, _, *rest = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    args, kwargs = rest or ((), {})
    inferer = engine.inferer.inferer if isinstance(engine.inferer, InferOrStatus) else engine.inferer
    with engine.mode(engine.network):
        output = inferer(inputs, engine.network, *args, **kwargs)
    blank = {**decollate_batch(batch)[0], **decollate_batch({"pred": output})[0]}
    try:
        postprocessing(blank)
    except Exception as error:
        raise ValueError(describe_error(case_error(error) or root_cause(error))) from error
