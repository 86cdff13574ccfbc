"""Configs of variants for the experiments whose trainings are bundles: networks, and the handlers of their terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_mil_ext.apps.study import parse_methods

from .settings import variants

__all__ = ["named_network", "qgmil_block", "term_handlers"]

HANDLERS, LOSSES = "monai_mil_ext.handlers.", "monai_mil_ext.losses."


def qgmil_block(variant: str, num_heads: int | None = None) -> dict[str, Any]:
    """Return the config of the block of a QG-MIL.

    Example:
        >>> block = qgmil_block("QG-MIL with QK norm", num_heads=4)
        >>> block["gate"], block["qk_norm"], block["norm"], block["ffn"], block["num_heads"]
        ('none', True, 'layer', 'mlp', 4)
    """
    default = {"_target_": "monai_mil_ext.networks.nets.QGMILBlock"}
    block = dict(variants()[variant].get("settings", {}).get("block", default))
    return block if num_heads is None else {**block, "num_heads": num_heads}


def named_network(name: str, **arguments: Any) -> dict[str, Any]:
    """Return the config of a network of the study; ``arguments`` that it has replace its own.

    Example:
        >>> named_network("DTFDMIL", hidden_size=64)["hidden_size"]
        64
        >>> "hidden_size" in named_network("DSMIL", hidden_size=64)
        False
    """
    (method,) = parse_methods(name)
    known = method.arguments()
    return {**method.network, **{key: value for key, value in arguments.items() if key in known}}


def term_handlers(name: str, inner: str = "") -> dict[str, Any]:
    """Return overrides of ``train.yaml`` that add the terms of a method of the study, with its weights.

    Args:
        name: name of the method.
        inner: path of the bag network in the trained network, with a dot at its end.

    Example:
        >>> list(term_handlers("CLAM")), term_handlers("ABMIL")
        (['train#named_handlers#instance_loss'], {})
    """
    (method,) = parse_methods(name)
    layers = {"instances": "instance_tap", "branches": "branch_tap"}
    prior = {"_target_": f"{HANDLERS}AttentionPriorHandler", "loss": {"_target_": f"{LOSSES}AttentionEntropyLoss"}}
    known: Mapping[str, tuple[str, dict[str, Any]]] = {
        "instances": ("instance_loss", {"_target_": f"{HANDLERS}InstanceLossHandler"}),
        "branches": ("branch_loss", {"_target_": f"{HANDLERS}BranchLossHandler"}),
        "entropy": ("attention_entropy", {**prior, "name": "attention_entropy"}),
        "mining": (
            "mining",
            {"_target_": f"{HANDLERS}MaskedHardInstanceHandler", "embedding_layer": f"{inner}classify"},
        ),
    }
    found = {}
    for term, weight in method.weights.items():
        if weight:
            key, config = known[term]
            layer = {"layer": inner + layers[term]} if term in layers else {}
            found[f"train#named_handlers#{key}"] = {**config, **layer, "weight": weight}
    return found
