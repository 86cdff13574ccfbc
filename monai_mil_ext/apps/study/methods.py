"""Methods of a study: networks by name, with the terms that their training adds to the loss."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_mil_ext.data import inspect_bag, read_sources
from monai_mil_ext.handlers import AttentionAnchorHandler
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks.nets import CORAL, BagNet, BagOutput, SourceNet, StandardizedNet
from monai_mil_ext.utils import check_not_negative

from .tasks import Task

__all__ = [
    "METHODS",
    "WEIGHTS",
    "StudyMethod",
    "UnmaskedNet",
    "build_study_network",
    "find_classifier",
    "parse_methods",
]

ANY_SIZE = 64  # of the instances of a network that is built for its properties
HIDDEN = 128  # width of the embedded instances: cohorts of some hundred bags do not need more
WIDTH = 256  # features of an instance that comes from one of several sources
NETS = "monai_mil_ext.networks.nets."
WEIGHTS = ("guidance", "kernel_guidance", "entropy", "anchor", "mining", "branches", "instances")
CLAM = {"hidden_size": HIDDEN, "attention_size": HIDDEN // 2}
SAMPLED = {"max_instances": 1024}  # of networks whose time grows with the square of the instances, in training


@dataclass(frozen=True)
class StudyMethod:
    """Method of a study: a network and the terms that its training adds to the loss.

    Args:
        name: name in tables and folders.
        network: config of the network with ``_target_``, without the sizes of its input and output.
        guidance: weight of :py:class:`monai_mil_ext.losses.NormalGuidanceLoss` on the attention.
        kernel_guidance: weight of :py:class:`monai_mil_ext.losses.KernelGuidanceLoss` on the attention; its kernel
            has an sd of two instances, in their order.
        entropy: weight of :py:class:`monai_mil_ext.losses.AttentionEntropyLoss` on the attention.
        anchor: weight of the anchor on the attention, :py:class:`monai_mil_ext.handlers.AttentionAnchorHandler`.
        mining: weight of the consistency of :py:class:`monai_mil_ext.handlers.MaskedHardInstanceHandler`, which hides
            instances from the network.
        branches: weight of the losses of the branches of :py:class:`monai_mil_ext.networks.nets.ACMIL`, of the first
            stream of :py:class:`monai_mil_ext.networks.nets.DSMIL`, or of the pseudo-bags of
            :py:class:`monai_mil_ext.networks.nets.DTFDMIL`.
        instances: weight of the loss of the instance classifiers of :py:class:`monai_mil_ext.networks.nets.CLAM`.
        settings: settings of the training that differ from those of the study, such as ``learning_rate``.

    Raises:
        ValueError: when the name can't be a folder, there is no ``_target_``, or a weight is negative.

    Example:
        >>> config = {"_target_": "monai_mil_ext.networks.nets.ABMIL", "hidden_size": 8}
        >>> StudyMethod("narrow", config).build(16, 2).in_features
        16
    """

    name: str
    network: Mapping[str, Any]
    guidance: float = 0.0
    kernel_guidance: float = 0.0
    entropy: float = 0.0
    anchor: float = 0.0
    mining: float = 0.0
    branches: float = 0.0
    instances: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w+-][\w+ .-]*", self.name):
            raise ValueError(f"`name` must be letters, digits, +, - and _, got {self.name!r}.")
        if "_target_" not in self.network:
            raise ValueError(f"`network` must have a `_target_`, got {sorted(self.network)}.")
        check_not_negative(**self.weights)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the further terms of the loss, by name."""
        return {name: getattr(self, name) for name in WEIGHTS}

    @property
    def is_recorded(self) -> bool:
        """True if the network is one of this package, which the record of a model describes."""
        return str(self.network["_target_"]).startswith(NETS)

    def build(self, in_features: int, num_outputs: int) -> BagNet:
        """Build the network with new weights.

        A network gets ``in_features`` and ``num_classes`` unless the config states them or it has no such argument. One
        that is no :py:class:`monai_mil_ext.networks.nets.BagNet` gets bags (1, N, F) one by one.
        """
        sizes = {"in_features": in_features, "num_classes": num_outputs}
        config = {name: size for name, size in sizes.items() if name in self.arguments()} | dict(self.network)
        net = ConfigParser({"network": config}).get_parsed_content("network")
        if not isinstance(net, nn.Module):
            raise ValueError(f"`network` must be a torch.nn.Module, got {type(net).__name__}.")
        return net if isinstance(net, BagNet) else UnmaskedNet(net)

    def make_anchor(self) -> AttentionAnchorHandler:
        """Create the handler of the anchor; a subclass may return one with another target or momentum."""
        return AttentionAnchorHandler(NSFKLLoss(), beta=self.anchor)

    def arguments(self) -> set[str]:
        """Return the names of the arguments of the network."""
        return set(inspect.signature(_component(self.network["_target_"])).parameters)


def build_study_network(method: StudyMethod, item: Mapping[str, Any], task: Task) -> StandardizedNet:
    """Build the network of a method for bags like that of an item, with new weights; it standardizes them itself.

    Ordered classes get the head of :py:class:`monai_mil_ext.networks.nets.CORAL`, and bags of several encoders or
    magnifications (:py:func:`monai_mil_ext.data.join_bag_files`) a projection of each to ``WIDTH`` features.
    """
    path = item["image"] if isinstance(item["image"], (str, os.PathLike)) else item["image"][0]
    sources, in_features = read_sources(path), int(inspect_bag(path).in_features or 0)
    outputs = 1 if task.kind == "ordinal" else task.num_logits
    net = method.build(WIDTH if sources else in_features, outputs)
    if sources:
        net = SourceNet(net, sources, WIDTH, normalize=True)
    return StandardizedNet(CORAL(net, len(task.class_names)) if task.kind == "ordinal" else net, in_features)


class UnmaskedNet(BagNet):
    """Network of another package, which takes one bag (1, N, F) at a time, without a mask; it gives logits only."""

    gives_scores = False

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward_bag(self, x: Tensor, mask: Tensor | None = None) -> BagOutput:
        """Compute the logits, see :py:class:`BagNet`."""
        bags = x.split(1) if mask is None else [bag[valid].unsqueeze(0) for bag, valid in zip(x, mask, strict=True)]
        return BagOutput(torch.cat([self.net(bag) for bag in bags]), None, None, None)


@cache
def _component(target: str) -> Any:
    """Return the class or function of a name, once: MONAI's parser searches all modules each time."""
    found = ConfigParser({"c": {"_target_": target, "_mode_": "callable"}}).get_parsed_content("c")
    return found.func if hasattr(found, "func") else found


def _net(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": NETS + target, **arguments}


METHODS: dict[str, dict[str, Any]] = {
    "ABMIL": {"network": _net("ABMIL", hidden_size=HIDDEN)},
    "QGMIL": {"network": _net("QGMIL", hidden_size=HIDDEN), "settings": SAMPLED},
    "ASMIL": {"network": _net("ASMIL", hidden_size=HIDDEN), "anchor": 0.01, "settings": {"gradient_clip": 5.0}},
    "TransMIL": {"network": _net("TransMIL", hidden_size=HIDDEN), "settings": {"learning_rate": 0.0002}},
    "ACMIL": {"network": _net("ACMIL", hidden_size=HIDDEN), "branches": 1.0},
    "DSMIL": {"network": _net("DSMIL"), "branches": 1.0},
    "DTFDMIL": {"network": _net("DTFDMIL", hidden_size=HIDDEN), "branches": 1.0},
    "CLAM": {"network": _net("CLAM", **CLAM), "instances": 0.3 / 0.7},
    "CLAM-MB": {"network": _net("CLAM", **CLAM, multi_branch=True), "instances": 0.3 / 0.7},
    "AdditiveMIL": {"network": _net("AdditiveMIL", hidden_size=HIDDEN)},
    "RecurrentMIL": {"network": _net("RecurrentMIL", hidden_size=HIDDEN // 2)},
    "SmAP": {"network": _net("SmAP")},
    "SmTP": {"network": _net("SmTP"), "settings": {"learning_rate": 0.0002} | SAMPLED},
    "SequenceTransMIL": {"network": _net("SequenceTransMIL"), "settings": {"learning_rate": 0.0002} | SAMPLED},
    "WindowMIL": {"network": _net("WindowMIL")},
    "MarkovMIL": {"network": _net("MarkovMIL", evidence="gated", attention_size=HIDDEN)},
    "MeanMIL": {"network": _net("MeanMIL"), "settings": {"learning_rate": 0.01}},
    "MaxMIL": {"network": _net("MaxMIL"), "settings": {"learning_rate": 0.01}},
    "InstanceMaxMIL": {"network": _net("InstanceMaxMIL"), "settings": {"learning_rate": 0.01}},
    "InstanceConvMIL": {"network": _net("InstanceConvMIL"), "settings": {"learning_rate": 0.01}},
    "CenterPrior": {"network": _net("CenterPrior")},
}
ALIASES = {
    "mean": "MeanMIL",
    "max": "MaxMIL",
    "instanceconv": "InstanceConvMIL",
    "instancemax": "InstanceMaxMIL",
    "smoothattention": "SmAP",
    "attentionmil": "ABMIL",
    "clamsb": "CLAM",
    "dtfd": "DTFDMIL",
    "additive": "AdditiveMIL",
    "recurrent": "RecurrentMIL",
}
TERMS = {
    "ng": ("+NG", {"guidance": 1.0}),
    "kg": ("+KG", {"kernel_guidance": 1.0}),
    "aem": ("+AEM", {"entropy": 0.1}),
    "mhim": ("+MHIM", {"mining": 0.1}),
    "anchor": ("+anchor", {"anchor": 0.01}),
}
ON_ATTENTION = ("guidance", "kernel_guidance", "entropy", "anchor", "mining")
NAMED_TERMS = ", ".join(suffix for suffix, _ in TERMS.values())


def parse_methods(methods: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> list[StudyMethod]:
    """Return the methods of a list of names, as a command line gives them.

    Names are those of the networks of :py:mod:`monai_mil_ext.networks.nets`, whatever their case, hyphens and blanks.
    ``+NG`` adds Normal Guidance, ``+KG`` kernel guidance, ``+AEM`` the entropy of attention, ``+MHIM`` masked hard
    instances and ``+anchor`` the anchor of ASMIL. Any other network is the path of its class, such as
    ``my_package.MyNet``, or a config with its arguments and ``_target_``, and optionally a ``name``; it is called by
    the name of its class otherwise. In the config of a bundle the key is ``target``, since MONAI builds whatever has a
    ``_target_`` at once, without the sizes of bags and classes.

    Args:
        methods: names, separated by commas or in a list, and configs.

    Raises:
        ValueError: when a name is unknown, two methods have one name, or one has a term on an attention that it lacks.

    Example:
        >>> [method.name for method in parse_methods("abmil, QG-MIL, TransMIL+NG")]
        ['ABMIL', 'QGMIL', 'TransMIL+NG']
    """
    given = [methods] if isinstance(methods, (str, Mapping)) else list(methods)
    parts: list[str | Mapping[str, Any]] = []
    for entry in given:
        parts += [part.strip() for part in entry.split(",") if part.strip()] if isinstance(entry, str) else [entry]
    found = [_named(part) if isinstance(part, str) else _configured(part) for part in parts]
    for method in found:
        _check_attention(method)
    names = [method.name for method in found]
    if not found or len(set(names)) < len(names):
        raise ValueError(f"`methods` must be one or more different methods, got {names}.")
    return found


def _check_attention(method: StudyMethod) -> None:
    """Refuse a term on the attention of a network that has none, before any training."""
    if not any(method.weights[term] for term in ON_ATTENTION):
        return
    net, name = method.build(ANY_SIZE, 2), method.name.partition("+")[0]
    if not net.gives_scores:
        raise ValueError(f"`methods` must have {NAMED_TERMS} only on a network with attention, got {name!r}.")
    if method.mining and find_classifier(method) is None:
        raise ValueError(f"`methods` must have +MHIM only on a network that classifies an embedding, got {name!r}.")


def find_classifier(method: StudyMethod) -> str | None:
    """Return the name of the submodule whose input is the embedding of a bag, such as ``"classify"``; None if none is.

    It is found by a forward pass of a new network, which leaves the random state as it was.
    """
    inputs: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        net = method.build(ANY_SIZE, 2).eval()
        for name, layer in net.named_children():
            layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0] if args else None}))
        embedding = net.forward_bag(torch.zeros(1, 3, ANY_SIZE)).embedding
    if embedding is None:
        return None
    found = [name for name, x in inputs.items() if isinstance(x, torch.Tensor) and x.shape[-1:] == embedding.shape[1:]]
    return next((name for name in found[::-1] if torch.equal(inputs[name].flatten(), embedding.flatten())), None)


def _named(text: str) -> StudyMethod:
    if "." in text:
        return _configured({"target": text})
    name, *terms = [part.strip() for part in text.split("+")]
    known = {_plain(method): method for method in METHODS} | ALIASES
    if _plain(name) not in known:
        near = difflib.get_close_matches(_plain(name), known, n=1)
        hint = f"; did you mean {known[near[0]]!r}?" if near else "."
        raise ValueError(f"`methods` must be of {', '.join(METHODS)}, got {name!r}{hint}")
    method = known[_plain(name)]
    values = dict(METHODS[method])
    for term in terms:
        if term.lower() not in TERMS:
            raise ValueError(f"`methods` may have the terms {NAMED_TERMS}, got +{term!s}.")
        suffix, weights = TERMS[term.lower()]
        method += suffix
        values |= weights
    return StudyMethod(method, **values)


def _configured(config: Mapping[str, Any]) -> StudyMethod:
    values = dict(config)
    if "target" in values:
        values["_target_"] = values.pop("target")
    name = values.pop("name", str(values.get("_target_", "")).rpartition(".")[2])
    if "network" in values:
        return StudyMethod(name, **values)
    return StudyMethod(name, values)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
