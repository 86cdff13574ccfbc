"""Record of a trained model, ``model.json``: what its weights need to be used as they were trained."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from monai_mil_ext.data.bags.instance_source import InstanceSource
from monai_mil_ext.data.features.fingerprints import fingerprint
from monai_mil_ext.utils import check_local, load_json, optional_dependency, write_json
from monai_mil_ext.utils.remote import as_path, is_remote

from .weights import file_sha256

__all__ = ["AT_SITE", "RECORD_FILE", "ModelRecord", "preprocessing_id"]

jsonschema = optional_dependency("", "jsonschema")
RECORD_FILE = "model.json"
AT_SITE = "at_site"  # key of `preprocessing`: names of parameters that stayed at the sites of a federated training
SCHEMA_VERSION = "1.1"  # 1.1 adds the task "cox"
PACKAGES = ("monai-mil-ext", "monai", "torch", "numpy")
MAX_BYTES = 64 * 2**20
CONFIG_MARKS = ("$", "@", "%")  # first characters of a string that MONAI's config parser evaluates


def preprocessing_id(*transforms: Any) -> str:
    """Identify a preprocessing: its fingerprint and the versions of the packages, between which it may change.

    Example:
        >>> preprocessing_id({"window": [-1000, 400]}) == preprocessing_id({"window": [-160, 240]})
        False
    """
    versions = package_versions(("monai-mil-ext", "monai"))
    return f"{fingerprint(*transforms)[:12]}@{'+'.join(versions.values())}"


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of the installed ones among ``packages``."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class ModelRecord:
    """Record of a trained model, stored as ``model.json`` beside its weights.

    It holds values only: no paths but the names of the weights beside it, no code, and no case ID or patient. Its
    schema is ``model.schema.json`` of this package. Readers refuse another major version of the schema, ignore keys
    that a later minor version adds, and refuse a task that it adds, which they could not predict.

    Args:
        name: name of the model.
        version: version of the model.
        network: ``class`` (public name in :py:mod:`monai_mil_ext.networks`, or the full name of another class),
            ``arguments`` of its constructor (``None`` if unknown) and ``options`` of all modules.
        sources: sources of the instances, one for each input of the network.
        task: ``kind`` (``"classification"``, ``"multilabel"``, ``"ordinal"``, ``"survival"``, ``"regression"``,
            ``"cox"``), ``num_classes``, ``class_names``, ``activation`` (``"softmax"``, ``"sigmoid"``, ``"none"``),
            ``level`` (``"bag"``, or ``"patient"`` if all bags of a patient are one) and the ``parameters`` of the
            task, such as ``bin_edges``, the ends of the time bins of ``"survival"``, ``None`` for an infinite one.
        weights: for each file of weights beside the record its ``file`` name and ``sha256``.
        covariates: for each further input of the network its ``name`` and ``parameters``.
        calibration: ``temperature``, and how it was found.
        operating_points: for each its ``name``, ``class_name``, ``threshold``, and by which ``method`` it was chosen.
            Of two classes, and for each of several labels, the first one decides.
        preprocessing: parameters that were estimated on the training data, such as ``mean`` and ``scale``;
            ``at_site`` names those that stayed at the sites of a federated training.
        cohort: counts of ``cases`` and ``patients``, ``classes``, ``fold``, ``seed``, and ``table_sha256``;
            ``demonstration``, the kind of data, marks weights that only show how a bundle works.
        versions: versions of the packages.
        date: UTC date and time of the training.

    Example:
        >>> record = ModelRecord("tumor", sources=(InstanceSource(encoder="uni_v1", mpp=(0.5,)),))
        >>> record.write("model.json")
        >>> ModelRecord.read("model.json") == record
        True
    """

    name: str
    version: str = "1"
    network: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[InstanceSource] = ()
    task: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[Mapping[str, str]] = ()
    covariates: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    operating_points: Sequence[Mapping[str, Any]] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    cohort: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=package_versions)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ModelRecord:
        """Read and validate a record.

        Args:
            path: the file, or the folder of ``model.json``; or its address in an object store.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is no record, has another major version, or holds anything but values.
        """
        place = as_path(path)
        if not is_remote(place):
            check_local(path=place)
        file = place / RECORD_FILE if place.is_dir() else place
        if not file.is_file():
            raise FileNotFoundError(f"`path` must be the record of a model that exists, got {file.name!r}.")
        return cls.from_values(_parse(file))

    @classmethod
    def from_values(cls, values: Any) -> ModelRecord:
        """Make a record from its JSON values, and validate them."""
        _check_version(values)
        _check_values(values)
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        known["sources"] = tuple(InstanceSource.from_values(v) for v in values.get("sources", ()))
        for name in ("weights", "covariates", "operating_points"):
            known[name] = tuple(values.get(name, ()))
        return cls(**known)

    def to_values(self) -> dict[str, Any]:
        """Return the JSON values of the record."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sources"}
        for name in ("weights", "covariates", "operating_points"):
            values[name] = list(values[name])
        return {"schema": SCHEMA_VERSION, **values, "sources": [source.to_values() for source in self.sources]}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Validate the record and write it, atomically.

        Raises:
            ValueError: when a value does not fit the schema.
        """
        values = json.loads(json.dumps(self.to_values()))
        _check_values(values)
        write_json(path, values)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in order, or ``None`` if they have none."""
        names = self.task.get("class_names")
        return None if names is None else tuple(names)

    def identity(self) -> dict[str, Any]:
        """Return what results state of their model: ``name``, ``version``, ``sha256`` of the weights."""
        hashes = [entry["sha256"] for entry in self.weights]
        return {"name": self.name, "version": self.version, "sha256": hashes[0] if len(hashes) == 1 else hashes}

    def check_weights(self, path: str | os.PathLike[str]) -> None:
        """Check that a file has the weights of the record.

        Raises:
            ValueError: when the record states other weights; they were replaced, or the record was.
        """
        known = {entry["sha256"] for entry in self.weights}
        if known and file_sha256(path) not in known:
            raise ValueError(
                f"`path` must have the weights that {RECORD_FILE} describes, got others in {Path(path).name!r}."
            )


def _parse(file: Path) -> Any:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        return load_json(file)
    except ValueError:
        raise ValueError(f"`path` must be the JSON record of a model, got {file.name!r}.") from None


@cache
def _validator() -> Any:
    schema = json.loads(files(__package__).joinpath("model.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def _check_version(values: Any) -> None:
    stated = values.get("schema") if isinstance(values, Mapping) else None
    major = str(stated).split(".")[0]
    if major != SCHEMA_VERSION.split(".", maxsplit=1)[0]:
        raise ValueError(f"`schema` of a model record must be 1.0 or a later 1.x, got {stated!r}.")


def _check_values(values: Any) -> None:
    """Check a record against the schema, and that no value is one that a config parser evaluates."""
    error = next(iter(_validator().iter_errors(values)), None)
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the record"
        raise ValueError(f"`{where}` of a model record must fit its schema: {' '.join(error.message.split())[:200]}.")
    names, number = values["task"].get("class_names"), values["task"].get("num_classes")
    if names is not None and number is not None and len(names) != number:
        raise ValueError(f"`task.class_names` of a model record must fit its schema: one for each of {number} classes.")
    for where, value in _leaves(values):
        if isinstance(value, str) and value.lstrip().startswith(CONFIG_MARKS):
            raise ValueError(f"`{where}` of a model record must be a value, got the expression {value[:40]!r}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{where}` of a model record must be finite, got {value}.")


def _leaves(value: Any, where: str = "record") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if str(key).startswith("_"):
                raise ValueError(f"`{where}` of a model record must have plain keys, got {key!r}.")
            yield from _leaves(part, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{where}.{i}")
    else:
        yield where, value
