"""Output of an intermediate layer of a network."""

from typing import Any

from torch import nn

__all__ = ["IntermediateOutput"]


class IntermediateOutput(nn.Module):
    """Network that returns the output of an intermediate layer, of a list the last; later layers are not computed.

    Args:
        net: any network.
        layer: dotted name of a module that the network calls once.

    Raises:
        ValueError: when the network does not have or does not call the layer.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(1, 1))
        >>> IntermediateOutput(net, "0")(torch.rand(2, 1, 5, 5)).shape
        torch.Size([2, 4, 3, 3])
    """

    def __init__(self, net: nn.Module, layer: str) -> None:
        super().__init__()
        if layer not in dict(net.named_modules()):
            children = ", ".join(name for name, _ in net.named_children())
            raise ValueError(f"`layer` must be a module of {type(net).__name__} ({children}, ...), got {layer!r}.")
        self.net = net
        self.layer = layer

    def forward(self, x: Any) -> Any:
        """Run ``net`` up to the layer."""
        # hooked for this call only, so that copies and replicas of this module hook their own layer
        handle = self.net.get_submodule(self.layer).register_forward_hook(_stop)
        try:
            self.net(x)
        except _ReachedError as reached:
            return reached.output[-1] if isinstance(reached.output, (list, tuple)) else reached.output
        finally:
            handle.remove()
        raise ValueError(f"`layer` must be called by {type(self.net).__name__}, got {self.layer!r}.")


class _ReachedError(Exception):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _ReachedError(output)
