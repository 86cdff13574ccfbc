"""Handler that loads the weights of a trained network."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from torch import nn

from monai_mil_ext.data.models import load_weights

__all__ = ["WeightsLoader"]


class WeightsLoader(CheckpointLoader):
    """Handler that loads weights into ``network`` when a run starts.

    In contrast to MONAI's ``CheckpointLoader``, it never unpickles objects, reads every form of
    :py:func:`monai_mil_ext.data.load_weights` (NVIDIA FLARE, ``DistributedDataParallel``), and names what does not fit.

    Args:
        load_path: file of weights.
        network: network that gets them.
        map_location: device of the loaded tensors, see ``torch.load``.

    Raises:
        FileNotFoundError: at the start of a run, when there is no such file.
        ValueError: when the file has no weights, or weights of another network.

    Example:
        >>> WeightsLoader("models/model.pt", nn.Linear(2, 2)).load_path
        'models/model.pt'
    """

    def __init__(self, load_path: str, network: nn.Module, map_location: Any = "cpu") -> None:
        super().__init__(load_path, {"network": network}, map_location=map_location)
        self.network = network

    def __call__(self, engine: Engine) -> None:
        """Load the weights."""
        weights = load_weights(self.load_path, self.map_location)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            kind = type(self.network).__name__
            reason = " ".join(str(error).split(":", 1)[-1].split())
            raise ValueError(f"`load_path` must have the weights of this {kind}, got others: {reason[:300]}") from None
        self.logger.info("loaded the weights of %s", type(self.network).__name__)
