"""Training of a model with one setting, and predicted probabilities of the second class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import Dataset
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.workflows import BUNDLES, make_workflow
from monai_mil_ext.data import BagCollate, bag_sizes
from monai_mil_ext.networks.nets import BagNet

__all__ = ["build_network", "predict_network", "predict_regression", "train_network"]

Bags = Sequence[Mapping[str, Any]]
DETERMINISM = ["$monai.utils.set_determinism(@seed)"]  # without the check of a command line, half of a short training
POOLS = {"min": lambda x: x.amin(0), "mean": lambda x: x.mean(0), "max": lambda x: x.amax(0)}


def _build_workflow(config: Mapping[str, Any], in_features: int, seed: int) -> ConfigWorkflow:
    """Return the workflow of ``train.yaml`` of ``bag_classifier`` for two classes, not yet initialized.

    Args:
        config: overrides of ``train.yaml``.
        in_features: number of features of an instance.
        seed: seed of the weights and of the order of bags.
    """
    overrides = dict(config)
    network = {**overrides.pop("network_def"), "in_features": in_features, "num_classes": 2}
    overrides |= {"seed": seed, "network_def": network, "initialize": DETERMINISM}
    return make_workflow(BUNDLES / "bag_classifier", ["train"], **overrides)


def build_network(config: Mapping[str, Any], in_features: int, seed: int) -> BagNet:
    """Build a network with new weights, see :py:func:`train_network`."""
    net: BagNet = _build_workflow(config, in_features, seed).parser.get_parsed_content("network")
    return net


def train_network(config: Mapping[str, Any], train_bags: Bags, seed: int) -> BagNet:
    """Train as ``train.yaml`` of ``bag_classifier`` does, for all epochs, and return the network.

    Args:
        config: overrides of ``train.yaml``.
        train_bags: standardized training bags.
        seed: seed of the weights and of the order of bags.
    """
    workflow = _build_workflow(config, train_bags[0]["image"].shape[1], seed)
    part = workflow.parser["train"]
    part["dataset"] = Dataset([{"image": bag["image"], "label": bag["label"]} for bag in train_bags])
    part["sampler"]["sizes"] = bag_sizes(train_bags)
    for name in ("validation", "stats", "record"):
        del part["named_handlers"][name]  # nothing is validated, logged or written
    workflow.initialize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # each run warns that the anchor makes attention uniform
        workflow.parser.get_parsed_content("train#trainer").run()
    net: BagNet = workflow.parser.get_parsed_content("network").eval()
    return net


def predict_network(config: Mapping[str, Any], train_bags: Bags, eval_bags: Bags, seed: int) -> NDArray[np.float64]:
    """Train with :py:func:`train_network`, and predict.

    Args:
        config: overrides of ``train.yaml``.
        train_bags: standardized training bags.
        eval_bags: standardized bags to predict.
        seed: seed of the weights and of the order of bags.
    """
    net = train_network(config, train_bags, seed)
    device = next(net.parameters()).device
    with torch.no_grad():
        batches = [BagCollate("image")([{"image": bag["image"]}]) for bag in eval_bags]
        logits = [net(batch["image"].to(device), batch["mask"].to(device)) for batch in batches]
    return torch.cat(logits).double().softmax(1)[:, 1].cpu().numpy()


def predict_regression(config: Mapping[str, Any], train_bags: Bags, eval_bags: Bags, seed: int) -> NDArray[np.float64]:
    """Fit a logistic regression on pooled features (``pools``: ``"min"``, ``"mean"``, ``"max"``), and predict."""
    rows = [
        np.stack([torch.cat([POOLS[pool](bag["image"]) for pool in config["pools"]]).numpy() for bag in bags])
        for bags in (train_bags, eval_bags)
    ]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=config["C"], max_iter=5000, random_state=seed))
    model.fit(rows[0], [bag["label"] for bag in train_bags])
    return model.predict_proba(rows[1])[:, 1]
