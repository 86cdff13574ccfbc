"""Trained model of a bundle: its folder of weights and their record, from which inference takes its settings."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.data.models import AT_SITE, RECORD_FILE, file_sha256, load_weights
from monai_mil_ext.data.models.network_options import check_same_options
from monai_mil_ext.handlers.instance_sets import SETS_FILE
from monai_mil_ext.handlers.savers.instance_set import INSTANCE_SET
from monai_mil_ext.metrics import ConformalInstances
from monai_mil_ext.networks import nets
from monai_mil_ext.networks.nets.constructor_arguments import describe_object
from monai_mil_ext.transforms.bags.check_source import compare_source
from monai_mil_ext.utils import BagKeys, SourceMismatchError, as_flag, check_local
from monai_mil_ext.utils.files import load_json, save_tensors
from monai_mil_ext.utils.remote import as_path, exists, is_remote

from .model_folder import DEMONSTRATION, WEIGHTS_FILE
from .module_options import network_options

__all__ = ["TrainedModel", "build_network", "describe_network", "save_model", "trained_network"]

DATACLASSES = ("QGMILBlock",)  # options of networks that are no networks themselves


def describe_network(net: nn.Module) -> dict[str, Any]:
    """Describe a network for :py:class:`monai_mil_ext.data.ModelRecord`: class, arguments and options of its modules.

    Example:
        >>> describe_network(nets.ABMIL(8, 2, num_heads=2))["arguments"]
        {'in_features': 8, 'num_classes': 2, 'num_heads': 2}
    """
    plain = describe_object(net) if getattr(nets, type(net).__name__, None) is type(net) else None
    name = f"{type(net).__module__}.{type(net).__qualname__}" if plain is None else plain["class"]
    arguments = None if plain is None else plain["arguments"]
    return {"class": name, "arguments": arguments, "options": network_options(net)}


def build_network(description: Mapping[str, Any]) -> nn.Module:
    """Build the network that a record describes.

    Only the public classes of :py:mod:`monai_mil_ext.networks.nets` are built, and only from plain values, so that a
    record can't make a program run anything else.

    Raises:
        ValueError: when the class is another one, or its arguments do not fit.

    Example:
        >>> type(build_network({"class": "ABMIL", "arguments": {"in_features": 8, "num_classes": 2}})).__name__
        'ABMIL'
    """
    name, arguments = description.get("class"), description.get("arguments")
    cls = getattr(nets, str(name), None) if name in nets.__all__ or name in DATACLASSES else None
    if not isinstance(cls, type) or not isinstance(arguments, Mapping):
        raise ValueError(f"`class` of a recorded network must be one of monai_mil_ext.networks.nets, got {name!r}.")
    try:
        net: nn.Module = cls(**{key: _build(value) for key, value in arguments.items()})
    except TypeError as error:
        raise ValueError(f"`arguments` of a recorded network must fit {name}, got {sorted(arguments)}.") from error
    return net


def _build(value: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() == {"class", "arguments"}:
        return build_network(value)
    if isinstance(value, Mapping):
        return {key: _build(part) for key, part in value.items()}
    return [_build(part) for part in value] if isinstance(value, (list, tuple)) else value


def save_model(folder: str | os.PathLike[str], net: nn.Module, name: str = "model", **values: Any) -> ModelRecord:
    """Save a network that was trained in Python: its weights, ``model.pt``, and their record, ``model.json``.

    Args:
        folder: folder of the two files.
        net: trained network.
        name: name of the model.
        **values: what is known of the training, see :py:class:`monai_mil_ext.data.ModelRecord`.

    Returns:
        The record.

    Example:
        >>> record = save_model("models", nets.ABMIL(8, 2), "tumor", sources=[InstanceSource(encoder="uni_v1")])
        >>> TrainedModel("models").source("encoder")
        'uni_v1'
    """
    weights = Path(folder) / WEIGHTS_FILE
    save_tensors(weights, net.state_dict())
    entry = {"file": weights.name, "sha256": file_sha256(weights)}
    record = ModelRecord(name, network=describe_network(net), weights=(entry,), **values)
    record.write(Path(folder) / RECORD_FILE)
    return record


class TrainedModel:
    """Weights of a training and their record, for the configs of inference, evaluation and export.

    Weights without ``model.json`` are used with the defaults of the config, and every result says that it is not known
    what they were trained on.

    Args:
        folder: folder of the weights and of ``model.json``, or its address in an object store.
        weights: name of the file of weights.
        allow_mismatch: whether to use weights although they are others than the record states, or input that differs
            from that of the training; results are marked.

    Raises:
        ValueError: when the record is none, or describes other weights than the file has.

    Example:
        >>> model = TrainedModel("models")
        >>> model.source("window", [-1000, 400]), model.identity()["trained_on"]
        ([-1000, 400], 'unknown')
    """

    def __init__(
        self, folder: str | os.PathLike[str], weights: str = WEIGHTS_FILE, allow_mismatch: bool = False
    ) -> None:
        place = as_path(folder)
        if not is_remote(place):
            check_local(folder=place)
        self.weights = place / weights
        self.allow_mismatch = as_flag(allow_mismatch)
        file = place / RECORD_FILE
        is_there = exists(file) or os.path.lexists(file)
        self.record = ModelRecord.read(file) if is_there else None
        self._known = ModelRecord("unknown") if self.record is None else self.record
        self._is_recorded = self.record is not None and self._has_recorded_weights()

    @classmethod
    def of(cls, weights: str | os.PathLike[str], allow_mismatch: bool = False) -> TrainedModel:
        """Return the model of a file of weights."""
        return cls(as_path(weights).parent, as_path(weights).name, allow_mismatch)

    def _has_recorded_weights(self) -> bool:
        if self.weights.is_file():
            if not self._known.weights:  # a record without hashes may be that of any weights
                return False
            try:
                self._known.check_weights(self.weights)
            except ValueError:
                if not self.allow_mismatch:
                    raise
                return False
        return True

    def source(self, name: str, default: Any = None, index: int = 0) -> Any:
        """Return a value of the source of the instances, such as ``"window"``, or the default if it is unknown."""
        sources = self._known.sources
        return sources[index].to_values().get(name, default) if len(sources) > index else default

    def task(self, name: str, default: Any = None) -> Any:
        """Return a value of the task, such as ``"class_names"``, or the default if it is unknown."""
        return self._known.task.get(name, default)

    def calibration(self, name: str, default: Any = None) -> Any:
        """Return a value of the calibration, such as ``"temperature"``, or the default if it is unknown."""
        return self._known.calibration.get(name, default)

    def preprocessing(self, name: str, default: Any = None) -> Any:
        """Return a value of the preprocessing, such as the ``"mean"`` of features, or the default if it is unknown.

        Raises:
            ValueError: when it stayed at the sites of a federated training, so that no one value is that of it.
        """
        if name in self._known.preprocessing.get(AT_SITE, ()):
            raise ValueError(
                "`ckpt_dir` must be the model of a site, got that of the server of a federated training, in which each "
                f"site has a {name} of its own: give --statistics of the bags at hand."
            )
        return self._known.preprocessing.get(name, default)

    def trained_source(self, index: int = 0) -> InstanceSource | None:
        """Return the source of the instances in the training, or ``None`` if it is unknown.

        It is unknown if the record describes other weights, which ``allow_mismatch`` lets pass.
        """
        sources = self._known.sources if self._is_recorded else ()
        return sources[index] if len(sources) > index else None

    def check_task(
        self,
        class_names: Sequence[str] | None = None,
        num_classes: int | None = None,
        kinds: Sequence[str] = ("classification",),
        level: str | None = None,
    ) -> None:
        """Check that options agree with the task that the model was trained for.

        Args:
            class_names: names of the classes in order; ``None`` is not checked.
            num_classes: number of classes; ``None`` is not checked.
            kinds: kinds of tasks that the config can evaluate.
            level: ``"bag"`` or ``"patient"``, for which all bags of a patient are one; ``None`` is not checked.

        Raises:
            ValueError: when the record states another kind, number, names or order of the classes, or level.
        """
        task, kind = self._known.task, self.task("kind")
        if kind is not None and kind not in kinds:
            raise ValueError(f"`ckpt_dir` must have a model for {' or '.join(kinds)}, got one for {kind}.")
        names = None if class_names is None else list(map(str, class_names))
        for option, given, trained in (
            ("class_names", names, task.get("class_names")),
            ("num_classes", num_classes, task.get("num_classes")),
            ("level", level, task.get("level")),
        ):
            if given is not None and trained is not None and given != trained:
                raise ValueError(f"`{option}` must be {trained}, as in the training, got {given}.")

    def check_source(self, source: InstanceSource) -> None:
        """Check that options make instances as those of the training; see ``allow_mismatch``.

        Raises:
            ValueError: when one differs; the message names all differences.
        """
        compare_source(self.trained_source(), source, self.allow_mismatch)

    def check_items(self, items: Iterable[Mapping[str, Any]], key: str = "image") -> str:
        """Check that the bag files of ``items`` come from the source of the training; see ``allow_mismatch``.

        Returns:
            ``"agrees with the training"``, what could not be checked, or what differs, for the results.

        Raises:
            ValueError: when one differs; the message names its case and all differences.
        """
        files = {str(item[key]): item for item in items}
        checks = Counter(self._check_item(item, key) for item in files.values())
        return "; ".join(text if len(checks) == 1 else f"{text} ({n} files)" for text, n in checks.most_common())

    def describe(self, items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what results on bag files state: the :py:meth:`identity`, and ``source_check`` of ``items``."""
        return {**self.identity(), str(BagKeys.SOURCE_CHECK): self.check_items(items)}

    def _check_item(self, item: Mapping[str, Any], key: str) -> str:
        try:
            return compare_source(self.trained_source(), InstanceSource.from_items([item], key), self.allow_mismatch)
        except SourceMismatchError as error:
            raise SourceMismatchError(f"{item.get(str(BagKeys.CASE_ID))!r} is refused: {error}") from None

    def network(self, default: nn.Module) -> nn.Module:
        """Return the network of the record, or ``default`` if the record does not describe it by plain values."""
        description = self._known.network
        return default if description.get("arguments") is None else build_network(description)

    def check_network(self, net: nn.Module) -> None:
        """Raise ``ValueError`` if ``net`` has other options than the network that was trained."""
        check_same_options(self._known.network.get("options", {}), network_options(net))

    def announce(self) -> None:
        """Print which model is used, and warn if it only demonstrates the bundle.

        Raises:
            FileNotFoundError: when there are no weights.

        Example:
            >>> record = save_model("models/trained", nets.ABMIL(8, 2), date="2026-11-30T12:00:00", cohort={"cases": 9})
            >>> TrainedModel("models/trained").announce()
            model: models/trained/model.pt (trained 2026-11-30 on 9 cases)
        """
        file, cohort = self.weights, self._known.cohort
        shown = Path(*file.parts[-2:]) if file.is_absolute() else file  # a path may name a user
        if not file.is_file():
            folder = Path(*file.parent.parts[-2:]) if file.is_absolute() else file.parent
            raise FileNotFoundError(
                f"`ckpt_dir` must be the folder of a trained model, got {folder.as_posix()} without {file.name}: "
                "train first, or name the folder of a training by --ckpt_dir."
            )
        counts = " of ".join(f"{cohort[what]} {what}" for what in ("cases", "patients") if cohort.get(what))
        trained = f"trained {self._known.date[:10]}{counts and f' on {counts}'}" if self._is_recorded else "no record"
        print(f"model: {shown.as_posix()} ({trained})")  # noqa: T201
        if self._is_recorded and DEMONSTRATION in cohort:
            warnings.warn(
                f"These are the weights that come with the bundle, trained on {cohort[DEMONSTRATION]}: they show how "
                "it works, and say nothing about disease. After a training its model is used.",
                stacklevel=2,
            )

    def check_loaded(self, net: nn.Module, weights: Mapping[str, Any], *_: Any) -> None:
        """Check that the weights that a network is about to load are those of this model.

        MONAI exports the file of ``--ckpt_file``, ``models/model.pt`` by default, whichever model ``ckpt_dir`` names;
        the network and what results state would be those of another one.

        Raises:
            ValueError: when the weights are others; see ``allow_mismatch``.
        """
        if self.allow_mismatch or not self.weights.is_file():
            return
        own = load_weights(self.weights)
        same = {name: torch.equal(own[name], weights[name].cpu()) for name in own.keys() & weights.keys()}
        if not all(same.values()):
            folder = Path(*self.weights.parent.parts[-2:]).as_posix()
            raise ValueError(
                f"`ckpt_dir` must be the folder of the weights to load, got {folder}, which has others; "
                "--ckpt_file names those of an export."
            )

    def identity(self) -> dict[str, Any]:
        """Return what every result states: ``name``, ``version``, ``sha256`` and ``trained_on`` of the model.

        ``conformal.json`` beside the weights, see :py:class:`monai_mil_ext.handlers.InstanceSetHandler`, is part of it.
        A record with ``operating_points``, or ``bin_edges`` of its task, states them too, and the weights that come
        with a bundle state the data that they demonstrate it with.
        """
        sha256 = file_sha256(self.weights) if self.weights.is_file() else None
        if self._is_recorded:  # a record may have several files of weights, of which this is one
            points = [dict(point) for point in self._known.operating_points]
            edges = self.task("parameters", {}).get("bin_edges")
            stated = {name: value for name, value in (("operating_points", points), ("bin_edges", edges)) if value}
            stated |= {"sha256": sha256} if sha256 else {}
            stated |= self._instance_sets(sha256)
            stated |= {key: value for key, value in self._known.cohort.items() if key == DEMONSTRATION}
            return {**self._known.identity(), **stated, "trained_on": RECORD_FILE}
        return {"name": None, "version": None, "sha256": sha256, "trained_on": "unknown"}

    def _instance_sets(self, sha256: str | None) -> dict[str, Any]:
        """Return the calibration of instance sets beside the weights, or why it can't be used."""
        file = self.weights.parent / SETS_FILE
        if not file.is_file():
            return {}
        record = load_json(file)
        ConformalInstances.from_dict(record)
        if record.get("weights_sha256") == sha256:
            return {INSTANCE_SET: record}
        return {INSTANCE_SET: {**record, "missing": f"{SETS_FILE} was calibrated with other weights"}}


def trained_network(trained: TrainedModel, default: nn.Module, **options: Any) -> nn.Module:
    """Return the network of a record, or ``default`` for weights without one; for configs of inference.

    It loads no weights but those of ``trained``, see :py:meth:`TrainedModel.check_loaded`.

    Args:
        trained: trained model.
        default: network of weights without a record.
        **options: none; an override of the config adds them.

    Raises:
        ValueError: when there are ``options``, since the network is that of the training.

    Example:
        >>> trained_network(TrainedModel("absent"), nets.MeanMIL(8, 2), hidden_size=16)
        Traceback (most recent call last):
        ...
        ValueError: `network_def` must be the network of model.json, got the options ['hidden_size']; ...
    """
    if options:
        raise ValueError(
            f"`network_def` must be the network of {RECORD_FILE}, got the options {sorted(options)}; for weights "
            "without a record pass --unrecorded_network#..., or the whole network as --network_def."
        )
    net = trained.network(default)
    net.register_load_state_dict_pre_hook(trained.check_loaded)
    return net
