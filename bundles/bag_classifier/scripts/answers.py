"""What a model, trained on some bags with one setting, answers to others: probabilities of the second class."""

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

from monai_mil_ext.data import BagCollate, bag_sizes

__all__ = ["network_answers", "regression_answers"]

Bags = Sequence[Mapping[str, Any]]
POOLS = {"min": lambda x: x.amin(0), "mean": lambda x: x.mean(0), "max": lambda x: x.amax(0)}


def network_answers(config: Mapping[str, Any], known: Bags, asked: Bags, seed: int) -> NDArray[np.float64]:
    """Train as ``train.yaml`` does, with MONAI's trainer and for all epochs, and answer.

    Args:
        config: overrides of ``train.yaml``.
        known: bags to train with, standardised.
        asked: bags to answer.
        seed: of weights and order.
    """
    overrides = dict(config)
    network = {**overrides.pop("network_def"), "in_features": known[0]["image"].shape[1], "num_classes": 2}
    workflow = ConfigWorkflow(
        ["configs/train.yaml"],
        workflow_type="train",
        logging_file=False,
        seed=seed,
        network_def=network,
        **overrides,
    )
    part = workflow.parser["train"]
    part["dataset"] = Dataset([{"image": bag["image"], "label": bag["label"]} for bag in known])
    part["sampler"]["sizes"] = bag_sizes(known)
    part["handlers"] = part["handlers"][:1]  # the schedule: nothing is validated or kept
    workflow.initialize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an anchor pins attention, once a run
        workflow.parser.get_parsed_content("train#trainer").run()
    net = workflow.parser.get_parsed_content("network").eval()
    device = workflow.parser.get_parsed_content("device")
    with torch.no_grad():
        batches = [BagCollate("image")([{"image": bag["image"]}]) for bag in asked]
        logits = [net(batch["image"].to(device), batch["mask"].to(device)) for batch in batches]
    return torch.cat(logits).double().softmax(1)[:, 1].cpu().numpy()


def regression_answers(config: Mapping[str, Any], known: Bags, asked: Bags, seed: int) -> NDArray[np.float64]:
    """Fit a logistic regression on pooled features (``pools``: ``"min"``, ``"mean"``, ``"max"``) and answer."""
    rows = [
        np.stack([torch.cat([POOLS[pool](bag["image"]) for pool in config["pools"]]).numpy() for bag in bags])
        for bags in (known, asked)
    ]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=config["C"], max_iter=5000, random_state=seed))
    model.fit(rows[0], [bag["label"] for bag in known])
    return model.predict_proba(rows[1])[:, 1]
