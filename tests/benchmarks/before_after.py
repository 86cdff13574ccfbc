"""Training steps with a form of the package from before, or of one written by hand, as the other side of a ratio."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.handlers import EMATeacher
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks import nets
from monai_mil_ext.networks.layers import bit_dropout, norms

__all__ = ["anchored_asmil", "composed_layers", "padded_scans"]


@contextlib.contextmanager
def composed_layers() -> Iterator[None]:
    """Compute RMS norms and dropout as torch composes them on a CPU."""
    with (
        mock.patch.object(norms, "is_eager_on_host", return_value=False),
        mock.patch.object(bit_dropout, "is_eager_on_host", return_value=False),
    ):
        yield


def anchored_asmil(instances: int) -> dict[str, Callable[[], None]]:
    """Return training steps of ASMIL 1024->512 with an anchor: ``ours`` has the fused optimizer, ``before`` has not."""
    x, loss = torch.randn(1, instances, 1024), NSFKLLoss()

    def step(net: nn.Module, fused: bool) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=fused)
        anchor = EMATeacher(net, "score_tap")

        def run() -> None:
            optimizer.zero_grad()
            out = net.forward_bag(x)
            bag_loss = functional.binary_cross_entropy_with_logits(out.logits, torch.ones_like(out.logits))
            (bag_loss + 0.01 * loss(out.scores, anchor.scores(x))).backward()
            optimizer.step()
            anchor.update(net, 0.999)

        return run

    net = nets.ASMIL(1024, 1, hidden_size=512).train()
    return {"before": step(copy.deepcopy(net), False), "ours": step(net, True)}


def padded_scans(hidden_size: int | None = 128, bags: int = 64) -> dict[str, Callable[[], None]]:
    """Return training steps of ABMIL on a batch of scans of 5 to 50 slices, padded with zeros to 50.

    ``ours`` is the network, ``bare`` its equations written by hand, for which padding must be finite.
    """
    mask = torch.arange(50) < torch.randint(5, 51, (bags, 1))
    x = torch.randn(bags, 50, 768).where(mask.unsqueeze(-1), 0)
    net = nets.ABMIL(768, 2, hidden_size=hidden_size).train()
    weights = {name: nn.Parameter(weight.detach().clone()) for name, weight in net.named_parameters()}

    def linear(name: str, h: Tensor) -> Tensor:
        return functional.linear(h, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def bare(x: Tensor) -> Tensor:
        h = x if hidden_size is None else linear("embed.0", x).relu()
        scores = linear("attend.score", linear("attend.value", h).tanh() * linear("attend.gate", h).sigmoid())
        attention = scores.masked_fill(~mask.unsqueeze(-1), float("-inf")).softmax(1)
        return linear("classify", (attention.transpose(1, 2) @ h)[:, 0])

    def step(forward: Callable[[Tensor], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
        label = torch.zeros(bags, dtype=torch.long)

        def run() -> None:
            optimizer.zero_grad()
            functional.cross_entropy(forward(x), label).backward()
            optimizer.step()

        return run

    return {
        "ours": step(lambda x: net(x, mask), list(net.parameters())),
        "bare": step(bare, list(weights.values())),
    }
