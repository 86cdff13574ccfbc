"""Handlers of the terms that a method adds to the loss of its labels."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from monai_mil_ext.apps.study.methods import StudyMethod, find_classifier
from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.handlers import (
    AttentionPriorHandler,
    BranchLossHandler,
    GradientClipHandler,
    InstanceLossHandler,
    MaskedHardInstanceHandler,
)
from monai_mil_ext.losses import (
    AttentionEntropyLoss,
    BranchDiversityLoss,
    CLAMInstanceLoss,
    KernelGuidanceLoss,
    NormalGuidanceLoss,
)
from monai_mil_ext.networks.nets import CORAL, SourceNet

from .fold_bags import POSITION, FoldBags

__all__ = ["missing_terms", "position_note", "term_handlers"]


def term_handlers(net: nn.Module, method: StudyMethod, bags: FoldBags) -> list[Any]:
    """Return the handlers of the further terms of the loss."""
    handlers = _attention_terms(method, bags)
    inner, path = net, ""  # of the network of the method, within a head and a network of several sources
    while isinstance(inner, (CORAL, SourceNet)):
        inner, path = inner.net, f"net.{path}"
    if method.mining:
        handlers.append(
            MaskedHardInstanceHandler(weight=method.mining, embedding_layer=f"{path}{find_classifier(method)}")
        )
    if method.branches:
        layer, weight = f"{path}branch_tap", method.branches
        branches = partial(_OrderedBranches, net) if isinstance(net, CORAL) else BranchLossHandler
        handlers.append(branches(layer=layer, weight=weight))
        if hasattr(inner, "mask_top"):
            prior, layer = BranchDiversityLoss(), f"{path}mask_top"
            handlers.append(AttentionPriorHandler(prior, layer=layer, weight=weight, name="branch_diversity"))
    if method.instances and _has_instance_loss(bags.outputs.task):
        loss = CLAMInstanceLoss(subtyping=not bags.outputs.task.is_binary)
        handlers.append(InstanceLossHandler(loss, layer=f"{path}instance_tap", weight=method.instances))
    if math.isfinite(bags.training.gradient_clip):
        handlers.append(GradientClipHandler(net, bags.training.gradient_clip))
    return handlers


def _attention_terms(method: StudyMethod, bags: FoldBags) -> list[Any]:
    """Return the handlers of the terms on attention."""
    priors: dict[str, tuple[float, Any]] = {
        "attention_prior": (method.guidance, NormalGuidanceLoss()),
        "kernel_guidance": (method.kernel_guidance, KernelGuidanceLoss()),
        "attention_entropy": (method.entropy, AttentionEntropyLoss()),
    }
    handlers: list[Any] = []
    for name, (weight, loss) in priors.items():
        if weight:
            key = POSITION if bags.positions and name == "attention_prior" else None
            handlers.append(AttentionPriorHandler(loss, weight=weight, name=name, positions_key=key))
    if method.anchor:
        handlers.append(method.make_anchor())
    return handlers


def _has_instance_loss(task: Task) -> bool:
    return task.kind == "classification"


def missing_terms(method: StudyMethod, task: Task) -> list[str]:
    """Return a sentence on each term of the method that the task lacks."""
    if not method.instances or _has_instance_loss(task):
        return []
    return [f"{method.name} is trained without its instance loss, which needs classes that exclude one another."]


def position_note(method: StudyMethod, bags: FoldBags) -> list[str]:
    """Return a sentence if Normal Guidance takes positions in mm."""
    return [f"Normal Guidance of {method.name} takes the positions of the slices in mm."] if bags.positions else []


class _OrderedBranches(BranchLossHandler):
    """Loss of branches with one output each, to which the head of ordered classes adds its biases."""

    def __init__(self, head: CORAL, layer: str, weight: float) -> None:
        super().__init__(layer=layer, weight=weight)
        self.head = head

    def term(self, output: Tensor, label: Any, mask: Tensor | None, loss_function: Any) -> Tensor:
        """Compute the loss of branches (B, K, 1)."""
        return super().term(output + self.head.biases, label, mask, loss_function)
