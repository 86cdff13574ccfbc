"""Training steps of networks, and of an earlier form or bare equations as the other side of a ratio.

Each step returns its weights, with their gradients.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.handlers import EMATeacher
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks import nets
from monai_mil_ext.networks.layers import bit_dropout, norms

Step = Callable[[], list[nn.Parameter]]

__all__ = ["anchored_asmil", "composed_layers", "gradient_cosine", "padded_scans", "short_qgmil"]


@contextlib.contextmanager
def composed_layers() -> Iterator[None]:
    """Compute RMS norms and dropout as torch composes them on a CPU."""
    with (
        mock.patch.object(norms, "is_eager_on_host", return_value=False),
        mock.patch.object(bit_dropout, "is_eager_on_host", return_value=False),
    ):
        yield


def anchored_asmil(instances: int) -> dict[str, Step]:
    """Return training steps of ASMIL 1024->512 with an anchor: ``ours`` has the fused optimizer, ``before`` has not."""
    x, loss = torch.randn(1, instances, 1024), NSFKLLoss()

    def step(net: nn.Module, fused: bool) -> Step:
        parameters = list(net.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=fused)
        anchor = EMATeacher(net, "score_tap")

        def run() -> list[nn.Parameter]:
            optimizer.zero_grad()
            out = net.forward_bag(x)
            bag_loss = functional.binary_cross_entropy_with_logits(out.logits, torch.ones_like(out.logits))
            (bag_loss + 0.01 * loss(out.scores, anchor.scores(x))).backward()
            optimizer.step()
            anchor.update(net, 0.999)
            return parameters

        return run

    net = nets.ASMIL(1024, 1, hidden_size=512).train()
    return {"before": step(copy.deepcopy(net), False), "ours": step(net, True)}


def padded_scans(hidden_size: int | None = 128, bags: int = 64) -> dict[str, Step]:
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

    def step(forward: Callable[[Tensor], Tensor], parameters: list[nn.Parameter]) -> Step:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
        label = torch.zeros(bags, dtype=torch.long)

        def run() -> list[nn.Parameter]:
            optimizer.zero_grad()
            functional.cross_entropy(forward(x), label).backward()
            optimizer.step()
            return parameters

        return run

    return {
        "ours": step(lambda x: net(x, mask), list(net.parameters())),
        "bare": step(bare, list(weights.values())),
    }


def short_qgmil(instances: int) -> dict[str, Step]:
    """Return training steps of the base preset of QG-MIL: ``float32``, ``bfloat16`` and ``composed``.

    ``bfloat16`` is by the option ``amp_dtype`` of ``BagInferer``, and ``composed`` has RMS norms and dropout as torch
    composes them.
    """
    x, net = torch.randn(1, instances, 1024), nets.QGMIL.from_preset("qgmil_base", 1024, 1).train()

    def step(dtype: torch.dtype | None = None, composed: bool = False) -> Step:
        own, inferer = copy.deepcopy(net), BagInferer(amp_dtype=dtype)
        parameters = list(own.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

        def run() -> list[nn.Parameter]:
            optimizer.zero_grad()
            with composed_layers() if composed else contextlib.nullcontext():
                logits = inferer(x, own)
                functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
            optimizer.step()
            return parameters

        return run

    return {"float32": step(), "bfloat16": step(torch.bfloat16), "composed": step(composed=True)}


def gradient_cosine(calls: dict[str, Step], one: str, other: str) -> float:
    """Compute the cosine of the angle between the gradients of all weights in two steps with the same dropout."""
    gradients = []
    for name in (one, other):
        torch.manual_seed(0)
        gradients.append(torch.cat([w.grad.flatten().double() for w in calls[name]() if w.grad is not None]))
    return functional.cosine_similarity(*gradients, dim=0).item()
