"""Site of a federated training: MONAI's client around a bundle, held to the model that all sites agreed on."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from monai_mil_ext.apps.bundle import build_network
from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.data.bags.instance_source import SourceDifference
from monai_mil_ext.networks import nets
from monai_mil_ext.utils import check_local, check_positive
from monai_mil_ext.utils.exceptions import root_cause
from monai_mil_ext.utils.files import save_tensors

__all__ = ["FederatedSite", "SiteRefusedError", "SiteUpdate", "check_options", "network_config"]

TRAIN, OVERLAY = "configs/train.yaml", "configs/federated.yaml"
OWN = ("bundle", "overlays")  # settings of a site that are no options of its bundle
OPTION = re.compile(r"[a-z][a-z0-9_]*")
NUM_CLASSES = 2  # of the bundles, unless an option says otherwise
FOLDER = "models/federated"  # of the global model in a bundle, where its configs find it
LABEL = re.compile(r"[\w.-]{1,64}")


class SiteRefusedError(ValueError):
    """Error of a site that does not fit the job; its message names no case, so that the server may see it."""


class SiteUpdate(NamedTuple):
    """Result of a round at a site: what is sent to the server.

    Attributes:
        differences: differences of the weights from those that the server sent.
        steps: number of steps, by which the server weights them.
        metrics: metrics of the server's weights on the validation part of the site.
    """

    differences: dict[str, Tensor]
    steps: int
    metrics: dict[str, float]


class FederatedSite:
    """Site of a federated training, around :py:class:`monai.fl.client.MonaiAlgo`.

    The record of the job states what all sites share: the network, the source of the instances and the classes. A site
    whose bags come from another encoder, or whose classes are others, is refused. Weights alone leave the site: the
    anchor of ASMIL, the statistics of features, the optimizer, labels and IDs stay.

    Args:
        record: record of the model without weights; its ``name`` is that of the bundle.
        site: name of the site.
        settings: ``bundle``, the folder of the bundle at this site, ``overlays``, names of further configs such
            as ``["asmil"]``, and options of the bundle, such as ``dataset_dir``.
        options: options that the job sets for all sites: numbers, since a text could be code.
        local_epochs: number of epochs of a round.

    Raises:
        SiteRefusedError: when the settings, classes or instances of the site do not fit the record.
        ValueError: when its cohort has errors.
    """

    def __init__(
        self,
        record: ModelRecord,
        site: str,
        settings: Mapping[str, Any],
        options: Mapping[str, float] | None = None,
        local_epochs: int = 1,
    ) -> None:
        check_positive(local_epochs=local_epochs)
        if not LABEL.fullmatch(site):
            raise SiteRefusedError(f"`site` must be a name of letters, digits, '.', '_' and '-', got {site!r}.")
        self.record, self.site = record, site
        bundle = _bundle_folder(settings)
        own = {name: value for name, value in settings.items() if name not in OWN}
        self._check_classes(own)
        given = {**check_options(options or {}), **self._shared(), "ckpt_dir": str(bundle / FOLDER), **own}
        check_local(ckpt_dir=given["ckpt_dir"])
        given |= {"bundle_root": str(bundle)}
        configs = [TRAIN, *(f"configs/{name}.yaml" for name in settings.get("overlays", ())), OVERLAY]
        sys.path.insert(0, str(bundle))  # of the bundle's scripts, as in its own folder
        self._algo = self._start(bundle, configs, given, local_epochs)
        self._parser = self._algo.train_workflow.parser
        self._folder = Path(self._parser.get_parsed_content("ckpt_dir"))
        self._check_record(self._parser.get_parsed_content("record"))

    def _start(self, bundle: Path, configs: list[str], given: dict[str, Any], local_epochs: int) -> MonaiAlgo:
        algo = MonaiAlgo(
            str(bundle),
            local_epochs=local_epochs,
            config_train_filename=configs,
            config_evaluate_filename=configs,
            train_kwargs=dict(given),
            eval_kwargs=dict(given),
        )
        with warnings.catch_warnings():  # the configs are those of the site's own bundle
            warnings.filterwarnings("ignore", message=".*executing the bundle config")
            try:
                algo.initialize({ExtraItems.CLIENT_NAME: self.site})
            except RuntimeError as error:  # of an expression of a config
                raise root_cause(error) from None
        return algo

    def _shared(self) -> dict[str, Any]:
        """Return the options of a bundle that the record of the job gives."""
        build_network(self.record.network)  # refuses what is no network of this package
        shared: dict[str, Any] = {"network_def": network_config(self.record.network)}
        if self.record.class_names is not None:
            return {**shared, "class_names": list(self.record.class_names)}
        number = self.record.task.get("num_classes", NUM_CLASSES)
        return shared if number == NUM_CLASSES else {**shared, "num_classes": number}

    def _check_classes(self, own: Mapping[str, Any]) -> None:
        if "network_def" in own:
            raise SiteRefusedError("`settings` must be without network_def, which the job gives.")
        names, got = self.record.class_names, own.get("class_names")
        if got is not None and tuple(got) != names:
            expected = "none" if names is None else list(names)
            raise self._refusal("class_names", expected, list(got))

    def _check_record(self, own: ModelRecord) -> None:
        """Check what the bundle at this site would train against the record of the job."""
        if own.name != self.record.name:
            raise self._refusal("bundle", self.record.name, own.name)
        for name in ("kind", "num_classes", "class_names", "level"):
            expected, got = self.record.task.get(name), own.task.get(name)
            if None not in (expected, got) and got != expected:
                raise self._refusal(name, expected, got)
        if len(own.sources) != len(self.record.sources):
            raise self._refusal("sources", len(self.record.sources), len(own.sources))
        for expected, got in zip(self.record.sources, own.sources, strict=True):
            self._check_source(expected, got)

    def _check_source(self, expected: InstanceSource, got: InstanceSource) -> None:
        difference = expected.compare(got)
        if difference:
            raise SiteRefusedError(f"{self.site} is refused: {_of_job(difference)}.")

    def _refusal(self, name: str, expected: Any, got: Any) -> SiteRefusedError:
        return SiteRefusedError(f"`{name}` of {self.site} must be that of the job, {expected}, got {got}.")

    def train(self, weights: Mapping[str, Any]) -> SiteUpdate:
        """Evaluate the weights that the server sent, and train them for the epochs of a round."""
        metrics = self.evaluate(weights)
        self._algo.train(ExchangeObject(weights=_tensors(weights)), {})
        sent = self._algo.get_weights()
        steps = self._algo.trainer.state.iteration - self._algo.iter_of_start_time
        return SiteUpdate(dict(sent.weights), steps, metrics)

    def evaluate(self, weights: Mapping[str, Any]) -> dict[str, float]:
        """Evaluate weights on the validation part of this site."""
        result = self._algo.evaluate(ExchangeObject(weights=_tensors(weights)), {})
        return {name: float(value) for name, value in result.metrics.items()}

    def keep(self, weights: Mapping[str, Any]) -> Path:
        """Save the global weights as the model of this site, with its own statistics; return the folder."""
        save_tensors(self._folder / "model.pt", _tensors(weights))
        for step in self._parser.get_parsed_content("keep_global"):
            step()
        return self._folder

    def close(self) -> None:
        """End the workflows."""
        self._algo.finalize()


def _of_job(difference: SourceDifference) -> str:
    """Return the message of a difference, as one from the job and not from a training."""
    return difference.message().replace("trained on", "the job is for", 1)


def network_config(description: Any, target: str = "_target_", arguments: str | None = None) -> Any:
    """Return the network of a record as a component of a config.

    Args:
        description: class and arguments, see :py:func:`monai_mil_ext.apps.bundle.describe_network`.
        target: key of the class.
        arguments: key of the arguments; ``None`` puts them beside the class.

    Example:
        >>> network_config({"class": "ABMIL", "arguments": {"in_features": 8}})
        {'_target_': 'monai_mil_ext.networks.nets.ABMIL', 'in_features': 8}
    """
    if not isinstance(description, Mapping) or not {"class", "arguments"} <= description.keys():
        return description
    values = {name: network_config(v, target, arguments) for name, v in description["arguments"].items()}
    named = {target: f"{nets.__name__}.{description['class']}"}
    return {**named, **values} if arguments is None else {**named, arguments: values}


def _tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in weights.items()}


def _bundle_folder(settings: Mapping[str, Any]) -> Path:
    folder = settings.get("bundle")
    if not isinstance(folder, (str, os.PathLike)):
        raise SiteRefusedError("`settings` must have bundle, the folder of the bundle at this site, got none.")
    check_local(bundle=folder)
    missing = [name for name in (TRAIN, OVERLAY) if not (Path(folder) / name).is_file()]
    if missing:
        raise SiteRefusedError(f"`bundle` must be the folder of a bundle that trains, got one without {missing[0]}.")
    return Path(folder).absolute()


def check_options(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the options of a job, which may set nothing but numbers: a text of a config can be code."""
    for name, value in options.items():
        if not OPTION.fullmatch(name) or not isinstance(value, (bool, int, float)):
            raise ValueError(f"`options` of a job must be numbers by names of options, got {name!r}: {value!r:.40}.")
    return dict(options)
