"""Models of a study: the networks of its folds, or one that was trained again, as one model with its record."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from monai_mil_ext.apps.bundle import TrainedModel, build_network, save_model
from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.data.models import load_weights
from monai_mil_ext.networks.nets import BagEnsemble, BagNet
from monai_mil_ext.utils import check_fraction

from .tasks import Task

__all__ = ["StudyModel", "read_study_model", "write_study_model"]

ACTIVATIONS = {"classification": "softmax", "multilabel": "sigmoid", "ordinal": "sigmoid", "survival": "sigmoid"}
YOUDEN = "Youden's index"


class StudyModel(NamedTuple):
    """Model of a study, as :py:func:`read_study_model` reads it.

    Attributes:
        network: network in evaluation mode.
        record: record of the model.
    """

    network: nn.Module
    record: ModelRecord

    @property
    def task(self) -> Task:
        """Task of the study."""
        values = self.record.task
        edges = (values.get("parameters") or {}).get("bin_edges") or ()
        ends = [math.inf if edge is None else float(edge) for edge in edges]
        return Task(str(values["kind"]), self.record.class_names or (), ends)

    @property
    def threshold(self) -> float | None:
        """Threshold of the probability of the second of two classes, or ``None`` if there is none."""
        points = self.record.operating_points
        return float(points[0]["threshold"]) if points else None


def write_study_model(
    folder: str | os.PathLike[str],
    networks: Sequence[BagNet],
    task: Task,
    name: str = "model",
    sources: Sequence[InstanceSource] = (),
    threshold: float | None = None,
    threshold_method: str = YOUDEN,
    cohort: Mapping[str, Any] | None = None,
    level: str = "bag",
) -> ModelRecord:
    """Write ``model.json`` and ``model.pt`` of a method of a study, for inference, MONAI Label and export.

    Several networks, those of the folds, become a :py:class:`monai_mil_ext.networks.nets.BagEnsemble`, which averages
    their predictions. Networks of other packages can't be described by a record: inference then needs the same network
    as ``--network_def``.

    Args:
        folder: folder of the two files, such as ``STUDY/models/ABMIL``.
        networks: networks of the folds, or a single one that was trained on all cases; each standardizes features
            itself, as :py:class:`monai_mil_ext.networks.nets.StandardizedNet` does.
        task: task of the study; all networks must have its time bins.
        name: name of the model, such as that of its method.
        sources: sources of the instances, see :py:class:`monai_mil_ext.data.InstanceSource`.
        threshold: probability of the second of two classes from which it is predicted; ``None``: the more probable one.
        threshold_method: how the threshold was chosen.
        cohort: summary of the cohort, see :py:func:`monai_mil_ext.data.summarize_cohort`.
        level: ``"bag"``, or ``"patient"`` if all bags of a patient are one.

    Returns:
        The record.

    Raises:
        ValueError: when there is no network, or a threshold for a task without two classes, or one outside of [0, 1].

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> folds, task = [ABMIL(8, 2), ABMIL(8, 2)], Task("classification", ["benign", "malignant"])
        >>> record = write_study_model("models/ABMIL", folds, task, "ABMIL", threshold=0.4)
        >>> model = read_study_model("models/ABMIL")
        >>> type(model.network).__name__, model.task == task, model.threshold
        ('BagEnsemble', True, 0.4)
    """
    if not networks:
        raise ValueError("`networks` must be one or more, got none.")
    return save_model(
        folder,
        networks[0] if len(networks) == 1 else BagEnsemble(networks, task.kind),
        name,
        sources=tuple(sources),
        task={**_task_values(task), "level": level},
        operating_points=_operating_points(task, threshold, threshold_method),
        cohort=dict(cohort or {}),
    )


def read_study_model(folder: str | os.PathLike[str]) -> StudyModel:
    """Read a model that :py:func:`write_study_model` saved.

    Args:
        folder: folder of ``model.json`` and ``model.pt``.

    Raises:
        FileNotFoundError: when there is no such model.
        ValueError: when the record is none, its weights were replaced, or its network is that of another package.
    """
    record = ModelRecord.read(folder)
    weights = TrainedModel(folder).weights
    network = build_network(record.network)
    network.load_state_dict(load_weights(weights))
    return StudyModel(network.eval(), record)


def _task_values(task: Task) -> dict[str, Any]:
    """Return a task as a record states it; an infinite end of the last time bin is None."""
    names = list(task.class_names)
    edges = [edge if math.isfinite(edge) else None for edge in task.bin_edges]
    return {
        "kind": task.kind,
        "class_names": names or None,
        "activation": ACTIVATIONS.get(task.kind, "none"),
        **({"num_classes": len(names)} if names else {}),
        **({"parameters": {"bin_edges": edges}} if edges else {}),
    }


def _operating_points(task: Task, threshold: float | None, method: str) -> list[dict[str, Any]]:
    if threshold is None:
        return []
    if not task.is_binary:
        raise ValueError(f"`threshold` must be None for a task without two classes, got {threshold}.")
    check_fraction(threshold=threshold)
    return [{"name": "study", "class_name": task.class_names[1], "threshold": float(threshold), "method": method}]
