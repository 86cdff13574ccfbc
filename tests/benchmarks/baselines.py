"""Training steps of more baselines, of the package and of the implementations that they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.losses import BranchLoss, CLAMInstanceLoss
from monai_mil_ext.networks import nets

__all__ = ["BASELINES", "adamw"]

F, E = 1024, 512
LABEL = torch.ones(1)
adamw = partial(torch.optim.AdamW, lr=1e-5, fused=True)  # of both sides of every comparison
bag_loss = functional.binary_cross_entropy_with_logits


def stepped(net: nn.Module, loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """Return a training step of AdamW on a loss."""
    optimizer = adamw(net.train().parameters())

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def of_torchmil(net: Any) -> Callable[[Tensor], None]:
    """Return a training step on the sum of all losses of a network of torchmil."""
    return stepped(net, lambda x: torch.stack(list(net.compute_loss(LABEL, x)[1].values())).sum())


def with_tap(net: nets.BagNet, tap: str, term: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """Return a training step on the loss of the bag and on that of the output of a submodule."""
    seen: list[Tensor] = []
    net.get_submodule(tap).register_forward_hook(lambda *args: seen.append(args[-1]))
    return stepped(net, lambda x: bag_loss(net(x).view(-1), LABEL) + term(seen.pop()))


def clam() -> dict[str, Callable[[Tensor], None]]:
    """Return training steps of CLAM-SB with its instance loss, without dropout: torchmil has none in the attention."""
    from torchmil.models import CLAM_SB

    project = nn.Sequential(nn.Linear(F, E), nn.ReLU())
    instance = CLAMInstanceLoss(subtyping=True)
    return {
        "torchmil": of_torchmil(CLAM_SB((F,), att_dim=256, k_sample=8, gated=True, feat_ext=project)),
        "ours": with_tap(nets.CLAM(F, 1, dropout=0), "instance_tap", lambda z: instance(z, LABEL.long())),
    }


def dsmil() -> dict[str, Callable[[Tensor], None]]:
    """Return training steps of DSMIL with the losses of both streams."""
    from torchmil.models import DSMIL

    return {
        "torchmil": of_torchmil(DSMIL((F,), att_dim=128, nonlinear_q=True)),
        "ours": with_tap(nets.DSMIL(F, 1), "branch_tap", lambda z: bag_loss(z.view(-1), LABEL)),
    }


def dtfd() -> dict[str, Callable[[Tensor], None]]:
    """Return training steps of DTFD-MIL with the losses of both tiers; torchmil's gets gates, for as many weights."""
    from torchmil.models import DTFDMIL
    from torchmil.nn import AttentionPool

    project = nn.Sequential(nn.Linear(F, E, bias=False), nn.ReLU())
    theirs = DTFDMIL((F,), att_dim=128, n_groups=4, distill_mode="afs", feat_ext=project)
    theirs.attention_pool, theirs.u_attention_pool = (AttentionPool(E, 128, gated=True) for _ in range(2))
    tier = BranchLoss(lambda z, y: bag_loss(z, y[:, None]))
    return {
        "torchmil": of_torchmil(theirs),
        "ours": with_tap(nets.DTFDMIL(F, 1, detach=False), "branch_tap", lambda z: tier(z, LABEL)),
    }


class PlainAdditive(nn.Module):
    """Equations of additive MIL without a mask."""

    def __init__(self, net: nets.AdditiveMIL) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(F, 256), nn.LayerNorm(256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LayerNorm(256),
            nn.LeakyReLU(0.2), nn.Linear(256, 1),
        )  # fmt: skip
        self.classify = net.classify

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.score(x).softmax(1) * x).sum(1)
        return logits


def additive() -> dict[str, Callable[[Tensor], None]]:
    """Return training steps of additive MIL and of its equations."""
    plain, ours = PlainAdditive(nets.AdditiveMIL(F, 1)), nets.AdditiveMIL(F, 1)
    losses = {"plain": plain, "ours": ours}
    return {n: stepped(net, lambda x, net=net: bag_loss(net(x).view(-1), LABEL)) for n, net in losses.items()}


class PlainRecurrent(nn.Module):
    """Bidirectional GRU of PyTorch with differences to both neighbors, pooled as by the winners."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3 * F, 128, batch_first=True, bidirectional=True)
        self.score, self.classify = nn.Linear(256, 1), nn.Linear(512, 1)

    def forward(self, x: Tensor) -> Tensor:
        step = x[:, 1:] - x[:, :-1]
        zero = torch.zeros_like(x[:, :1])
        g = self.rnn(torch.cat([x, torch.cat([zero, step], 1), torch.cat([-step, zero], 1)], 2))[0]
        attention = torch.tanh(self.score(g)).softmax(1)
        logits: Tensor = self.classify(torch.cat([g.amax(1), (attention * g).sum(1)], 1))
        return logits


def recurrent() -> dict[str, Callable[[Tensor], None]]:
    """Return training steps of the recurrent network and of PyTorch's bidirectional GRU."""
    losses = {"plain": PlainRecurrent(), "ours": nets.RecurrentMIL(F, 1)}
    return {n: stepped(net, lambda x, net=net: bag_loss(net(x).view(-1), LABEL)) for n, net in losses.items()}


BASELINES: dict[str, Callable[[], dict[str, Callable[[Tensor], None]]]] = {
    "torchmil_clam": clam,
    "torchmil_dsmil": dsmil,
    "torchmil_dtfd": dtfd,
    "additive": additive,
    "recurrent": recurrent,
}
