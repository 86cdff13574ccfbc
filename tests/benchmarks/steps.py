"""Calls that are timed: training steps and forward passes, of the package and of others, for a bag (1, N, F)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.handlers import EMATeacher
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks import nets
from tests.benchmarks import published
from tests.benchmarks.baselines import BASELINES, adamw
from tests.benchmarks.peers import PEERS, steps_of

MOMENTUM = 0.999
BETA = 0.01


class Steps(NamedTuple):
    """Calls by name, and the number of features of their instances."""

    calls: Mapping[str, Callable[[Tensor], Any]]
    features: int

    def bag(self, instances: int) -> Tensor:
        """Return a random bag."""
        return torch.randn(1, instances, self.features)

    def on(self, instances: int) -> dict[str, Callable[[], Any]]:
        """Return the calls, bound to one random bag of that size."""
        bag = self.bag(instances)
        return {name: partial(call, bag) for name, call in self.calls.items()}


def training(weights: Iterable[Tensor], forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """Return a training step of AdamW on the loss of logits (B, 1)."""
    optimizer = adamw(list(weights))

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        logits = forward(x).view(-1)
        functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
        optimizer.step()

    return step


def forward_only(forward: Callable[[Tensor], Any]) -> Callable[[Tensor], None]:
    """Return a forward pass without gradients."""

    def call(x: Tensor) -> None:
        with torch.no_grad():
            forward(x)

    return call


def without_attention(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the network with attention among tokens replaced by the identity on values, as a lower bound."""

    def forward(x: Tensor) -> Tensor:
        with mock.patch.object(functional, "scaled_dot_product_attention", lambda q, k, v, *args, **kwargs: v):
            return net(x)

    return forward


def qgmil_train() -> Steps:
    """Return training steps of the published base preset with 1,024 features."""
    net = nets.QGMIL.from_preset("qgmil_base", 1024, 1).train()
    weights = published.published_weights(net)
    return Steps(
        {
            "published": training(weights.values(), partial(published.qgmil, weights, dropout=0.25)),
            "ours": training(net.parameters(), net),
            "bound": training(net.parameters(), without_attention(net)),
        },
        1024,
    )


def qgmil_forward() -> Steps:
    """Return forward passes of the base preset, also with each kind of attention."""
    net = nets.QGMIL.from_preset("qgmil_base", 1024, 1).eval()
    weights = published.published_weights(net)
    return Steps(
        {
            "published": forward_only(partial(published.qgmil, weights)),
            "ours": forward_only(net),
            "bound": forward_only(without_attention(net)),
            "attention": forward_only(net.forward_bag),
            "received": forward_only(net.received_attention),
            "rollout": forward_only(net.attention_rollout),
        },
        1024,
    )


def qgmil_class_row() -> Steps:
    """Return forward passes of two blocks with a class token, with and without its attention."""
    net = nets.QGMIL(1024, 1, num_layers=2, pooling="cls").eval()
    return Steps({"ours": forward_only(net), "attention": forward_only(net.forward_bag)}, 1024)


def asmil_train() -> Steps:
    """Return training steps of ASMIL of published width with 384 features, 16 tokens and an anchor."""
    net = nets.ASMIL(384, 1, num_tokens=16).train()
    weights = published.published_weights(net)
    anchor_weights = {name: w.detach().clone() for name, w in weights.items()}
    optimizers = [adamw(list(w)) for w in (weights.values(), net.parameters())]
    anchor, anchor_loss = EMATeacher(net, "score_tap"), NSFKLLoss()

    def bag_loss(logits: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def theirs(x: Tensor) -> None:
        optimizers[0].zero_grad()
        logits, scores = published.asmil(weights, x, dropout=0.1, drop=0.5)
        with torch.no_grad():
            _, anchor_scores = published.asmil(anchor_weights, x)
        (bag_loss(logits) + BETA * published.nsf_kl(scores, anchor_scores)).backward()
        optimizers[0].step()
        with torch.no_grad():
            for name, w in weights.items():
                anchor_weights[name].lerp_(w, 1 - MOMENTUM)

    def ours(x: Tensor) -> None:
        optimizers[1].zero_grad()
        out = net.forward_bag(x)
        (bag_loss(out.logits) + BETA * anchor_loss(out.scores, anchor.scores(x))).backward()
        optimizers[1].step()
        anchor.update(net, MOMENTUM)

    read = training(net.parameters(), lambda x: net.classify(torch.relu(net.embed(x)).mean(1)))
    return Steps({"published": theirs, "ours": ours, "bound": read}, 384)


def torchmil_transmil() -> Steps:
    """Return training steps of TransMIL; that of torchmil has fewer layers, so it is wider for as many weights."""
    from torchmil.models import TransMIL

    theirs, ours = TransMIL((1024,), att_dim=576, n_heads=8, dropout=0.1), nets.TransMIL(1024, 1)
    same = TransMIL((1024,), att_dim=512, n_heads=8, dropout=0.1)
    plain = copy.deepcopy(ours)
    for layer in (plain.attend1, plain.attend2):
        layer.forward = lambda h, counts, a=layer: a.drop(a.merge(functional.linear(h, a.project.weight)[..., -512:]))
    nets_by_name = {"torchmil": theirs, "ours": ours, "bound": plain, "as_wide": same}
    return Steps({name: training(net.train().parameters(), net) for name, net in nets_by_name.items()}, 1024)


def torchmil_abmil() -> Steps:
    """Return training steps of gated ABMIL on features; both networks have the same weights."""
    from torchmil.models import ABMIL

    theirs, ours = ABMIL((1024,), att_dim=128, gated=True), nets.ABMIL(1024, 1)
    read = training(ours.classify.parameters(), lambda x: ours.classify(x.mean(1)))
    calls = {name: training(net.train().parameters(), net) for name, net in (("torchmil", theirs), ("ours", ours))}
    return Steps({**calls, "bound": read}, 1024)


def _linear(make: Callable[[], nn.Module], features: int = 384) -> Callable[[], Steps]:
    def steps() -> Steps:
        net = make()
        train = training(net.parameters(), net)
        # each call sets its mode, since the benchmark runs one of them per process
        calls = {"train": lambda x: (net.train(), train(x)), "forward": lambda x: (net.eval(), forward_only(net)(x))}
        return Steps(calls, features)

    return steps


def _inference(make: Callable[[], nn.Module]) -> Callable[[], Steps]:
    """Return forward passes as users run them, in chunks where the network allows it, and on the whole bag."""

    def steps() -> Steps:
        net = make().eval()
        calls = {"whole": net, "forward": partial(BagInferer(), network=net)}
        calls["bfloat16"] = partial(BagInferer(amp_dtype=torch.bfloat16), network=net)
        return Steps({name: forward_only(call) for name, call in calls.items()}, 1024)

    return steps


NETWORKS = {
    "MeanMIL": partial(nets.MeanMIL, 384, 1),
    "MaxMIL": partial(nets.MaxMIL, 384, 1),
    "ABMIL": partial(nets.ABMIL, 384, 1, hidden_size=128),
    "ACMIL": partial(nets.ACMIL, 384, 1, hidden_size=128),
    "ASMIL": partial(nets.ASMIL, 384, 1),
    "SmAP": partial(nets.SmAP, 384, 1),
    "SmTP": partial(nets.SmTP, 384, 1),
    "SequenceTransMIL": partial(nets.SequenceTransMIL, 384, 1),
    "TransMIL": partial(nets.TransMIL, 384, 1),
    "QGMIL": partial(nets.QGMIL, 384, 1),
}
STEPS: dict[str, Callable[[], Steps]] = {
    "qgmil_train": qgmil_train,
    "qgmil_forward": qgmil_forward,
    "qgmil_class_row": qgmil_class_row,
    "asmil_train": asmil_train,
    "torchmil_transmil": torchmil_transmil,
    "torchmil_abmil": torchmil_abmil,
    **{name: lambda make=make: Steps(make(), 1024) for name, make in BASELINES.items()},
    **{name: lambda name=name: Steps(*steps_of(name)) for name in PEERS},
    "million_ABMIL": _inference(partial(nets.ABMIL, 1024, 1, hidden_size=512)),
    "million_ASMIL": _inference(partial(nets.ASMIL, 1024, 1)),
    "million_QGMIL": _inference(partial(nets.QGMIL, 1024, 1)),
    **{f"linear_{name}": _linear(make) for name, make in NETWORKS.items()},
}
