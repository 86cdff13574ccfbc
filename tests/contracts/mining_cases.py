"""Every network on which masked hard instances are tested, and batches for it."""

from functools import partial
from typing import NamedTuple

import pytest
import torch

from tests.contracts.net_cases import CASES
from tests.handlers.networks import mil_model
from tests.handlers.training import bag_batches, in_float64, patch_batches

SIZES = (7, 4, 1, 0)  # of the bags of a batch
NO_SCORES = {
    "QGMIL-mean",
    "QGMIL-max",
    "MaxMIL",
    "MeanMIL",
    *(name for name in CASES if name.startswith("BagEnsemble")),
}
NO_CLASSIFIER = {"ABMIL-per-class", "CLAM-multi-branch", "MarkovMIL", "WindowMIL"}
INSTANCE_CLASSIFIER = {"AdditiveMIL", "AdditiveMIL-centered", "InstanceConvMIL", "InstanceMaxMIL"}
NO_TRAINING = {"CenterPrior"}  # has no parameters
INSIDE = ("CORAL", "RebinnedSurvivalNet", "SourceNet", "StandardizedNet")


class MiningCase(NamedTuple):
    """Network, batches for it and options of the handler."""

    make: object
    batches: list
    options: dict


def _options(name):
    if name in NO_CLASSIFIER | INSTANCE_CLASSIFIER:
        return {"weight": 0.0}
    paths = {"QGMIL": "classifier", **dict.fromkeys(INSIDE, "net.classify")}
    return {"weight": 2.0, "embedding_layer": paths.get(name.partition("-")[0], "classify")}


def _mil_model(mode):
    return mil_model(mode).double().train()


def _network(make):
    torch.manual_seed(0)
    return make().double().train()


MINED = {
    name: MiningCase(partial(_network, make), in_float64(bag_batches(2, SIZES)), _options(name))
    for name, make in CASES.items()
    if name not in NO_SCORES | NO_TRAINING
}
for mode in ("att", "att_trans"):
    layers = {"weight": 2.0, "layer": "attention", "embedding_layer": "myfc"}
    MINED[f"MILModel-{mode}"] = MiningCase(partial(_mil_model, mode), in_float64(patch_batches(2)), layers)
every_mined_net = pytest.mark.parametrize("case", MINED.values(), ids=MINED)
