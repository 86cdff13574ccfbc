"""Job of NVIDIA FLARE: federated averaging of a bundle's network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.apps.bundle import build_network
from monai_mil_ext.data import ModelRecord
from monai_mil_ext.data.models import RECORD_FILE
from monai_mil_ext.utils import check_positive, optional_dependency

from .federated_site import check_options, network_config
from .global_model import GlobalModelSaver
from .site_executor import SiteExecutor

__all__ = ["CLASS_ALLOW_LIST", "federated_job"]

Recipe = optional_dependency("flare", "nvflare.recipe.spec", "Recipe")
BaseFedJob = optional_dependency("flare", "nvflare.app_opt.pt.job_config.base_fed_job", "BaseFedJob")
PTModel = optional_dependency("flare", "nvflare.app_opt.pt.job_config.model", "PTModel")
FedAvg = optional_dependency("flare", "nvflare.app_common.workflows.fedavg", "FedAvg")
GlobalModelEval = optional_dependency("flare", "nvflare.app_common.workflows.global_model_eval", "GlobalModelEval")
KEY_METRIC = "bag_auroc"
STANDARDIZED = ("bag_classifier",)  # bundles that standardize features by those of the training, unless told not to
CLASS_ALLOW_LIST = (  # of a job, beside FLARE's own default: the last two are for the server alone
    "monai_mil_ext.apps.federated.",
    "monai_mil_ext.networks.nets.",
    "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor",
)
TASKS = ["train", "validate"]


def federated_job(
    record: str | os.PathLike[str],
    min_clients: int,
    num_rounds: int,
    local_epochs: int = 1,
    options: Mapping[str, float] | None = None,
    key_metric: str = KEY_METRIC,
    name: str = "mil",
) -> Any:
    """Make the recipe of a job that trains the network of a record at several sites, by federated averaging.

    The server needs no cohort: ``record`` is the ``model.json`` of a model without weights, which states the network,
    the source of the instances and the classes. It goes with the job to all sites, which are checked against it. A job
    has no code: server and sites run what they have installed, and their ``class_allow_list`` must have
    ``CLASS_ALLOW_LIST``.

    Args:
        record: path of ``model.json``; its ``name`` is that of the bundle.
        min_clients: number of sites to wait for.
        num_rounds: number of rounds.
        local_epochs: number of epochs of a round at each site.
        options: options of the bundle for all sites, numbers such as ``{"learning_rate": 0.001}``.
        key_metric: metric by which the server keeps the best of the models that it sent.
        name: name of the job.

    Returns:
        A recipe of ``nvflare``: ``execute`` it in an environment, or ``export`` it.

    Raises:
        ValueError: when the record does not describe a network, a source and a task, or ``options`` are no numbers.
    """
    check_positive(min_clients=min_clients, num_rounds=num_rounds, local_epochs=local_epochs)
    file = Path(record)
    if file.name != RECORD_FILE:
        raise ValueError(f"`record` must be a file {RECORD_FILE}, got {file.name!r}.")
    known = ModelRecord.read(file)
    missing = [part for part in ("network", "sources", "task") if not getattr(known, part)]
    if missing:
        raise ValueError(f"`record` must state {', '.join(missing)}, which all sites are checked against.")
    build_network(known.network)
    numbers = {"epochs": num_rounds * local_epochs, **check_options(options or {})}  # epochs: length of the schedule
    job = BaseFedJob(name=name, min_clients=min_clients, key_metric=key_metric)
    job.set_app_packages(["monai_mil_ext"])  # or FLARE would send its code to the sites
    ids = job.to_server(PTModel(network_config(known.network, "path", "args")), id="persistor")
    job.to_server(FedAvg(num_clients=min_clients, num_rounds=num_rounds, persistor_id=ids["persistor_id"]))
    job.to_server(GlobalModelEval(model_locator_id=ids["locator_id"]))
    at_site = known.name in STANDARDIZED and bool(numbers.get("standardize", True))
    job.to_server(GlobalModelSaver(at_site), id="global_model")
    job.to_clients(SiteExecutor(local_epochs, numbers), tasks=TASKS)
    job.add_file_to_server(str(file.absolute()), app_folder_type="config")
    job.add_file_to_clients(str(file.absolute()), app_folder_type="config")
    return Recipe(job)
