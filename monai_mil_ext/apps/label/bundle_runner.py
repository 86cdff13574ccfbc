"""Runner of bundle workflows inside a server process."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.handlers import CheckpointLoader

from monai_mil_ext.apps.bundle import find_model, is_demonstration, training_folder
from monai_mil_ext.data import ModelRecord, input_identity
from monai_mil_ext.data.models import RECORD_FILE
from monai_mil_ext.handlers import BatchInference
from monai_mil_ext.utils import as_range

from .errors import http_error

__all__ = ["BundleRunner", "device_override"]

SITE = "site"
UNSEEN: dict[str, Any] = {"pictures": [], "viewer": "none"}  # files of a folder that ends with the request
_LOCK = threading.RLock()  # bundles share the module name `scripts` and the GPU

Version = dict[Path, str]  # identities of files


class _KeptWorkflow(NamedTuple):
    """Initialized workflow with everything that it depends on, except its input."""

    workflow: ConfigWorkflow
    options: Any
    files: tuple[Path, ...]
    version: Version


class BundleRunner:
    """Runner of the workflows of a bundle, a folder with ``configs/`` and ``models/model.pt``.

    ``configs/site.yaml``, if it exists, overrides every workflow with the settings of an installation.

    Args:
        root: folder of the bundle.

    Raises:
        FileNotFoundError: when it lacks ``configs/metadata.json``.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()
        self.metadata: dict[str, Any] = json.loads((self.root / "configs" / "metadata.json").read_text("utf-8"))
        self._kept: _KeptWorkflow | None = None

    @property
    def name(self) -> str:
        """Name of the bundle's folder."""
        return self.root.name

    @property
    def weights(self) -> Path:
        """Path of the trained network, or of the weights that come with the bundle."""
        return Path(find_model(self.root / "models")) / "model.pt"

    @property
    def new_weights(self) -> Path:
        """Path to which a training writes its weights: it never replaces those that come with the bundle."""
        return Path(training_folder(self.root / "models")) / "model.pt"

    @property
    def is_demonstration(self) -> bool:
        """Flag of a bundle that nobody has trained: its weights only show how it works."""
        return is_demonstration(self.weights.parent)

    @property
    def reads_slides(self) -> bool:
        """Flag of bundles whose images are whole slides rather than scans."""
        return bool(self._format("inputs")["modality"] == "WSI")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their indices.

        They are those of the trained model; before a training, of the configs, and else of the metadata.
        """
        record = self.weights.with_name(RECORD_FILE)
        is_trained = record.is_file() and not self.is_demonstration
        names = ModelRecord.read(record).class_names if is_trained else self._config("train").get("class_names")
        if isinstance(names, (list, tuple)):
            return list(names)
        names = self._format("outputs")["channel_def"]
        return [names[key] for key in sorted(names, key=int)]

    @property
    def hu_window(self) -> tuple[float, float] | None:
        """Window of the training, or None for a normalization in its place."""
        config = self._config("train")
        try:
            return None if config.get("normalization") else as_range(hu_window=config.get("hu_window"))
        except ValueError:  # an expression
            return None

    @property
    def plane(self) -> str:
        """Plane of the slices of a scan."""
        return str(self._config("train").get("plane", "axial"))

    def has(self, *configs: str) -> bool:
        """Return whether all of ``configs`` exist."""
        return all(self._file(name).is_file() for name in configs)

    def check_site(self) -> None:
        """Raise ``ValueError`` if ``site.yaml`` asks for pictures or a viewer, which no client would get."""
        site = ConfigParser.load_config_files(self.config_files()) if self.has(SITE) else {}
        for name, none in UNSEEN.items():
            if site.get(name, none) != none:
                raise ValueError(
                    f"`{name}` in the site.yaml of {self.name} must be {none}, got {site[name]}: answers to clients "
                    "have neither pictures nor a viewer; the inference of the bundle writes them."
                )

    def unseen(self) -> dict[str, Any]:
        """Return the options with which the inference writes nothing that a client does not get."""
        options = self._config("inference")
        return {name: none for name, none in UNSEEN.items() if name in options}

    def config_files(self, *configs: str) -> list[str]:
        """Return the files of ``configs``, with the overlay of the installation."""
        return [str(self._file(name)) for name in (*configs, *([SITE] if self.has(SITE) else []))]

    def run(
        self, kind: str, *configs: str, on_epoch: Callable[[int], None] | None = None, **overrides: Any
    ) -> ConfigWorkflow:
        """Run the workflow of ``configs`` and return it; a process runs one workflow at a time.

        Args:
            kind: ``"infer"`` or ``"train"``.
            *configs: names of files in ``configs/``; later ones override earlier ones.
            on_epoch: function that is called with the number of each epoch of a training when it is complete.
            **overrides: values by key. A string that begins with ``$``, ``@`` or ``%`` is an expression, so none may
                come from a client.
        """
        with _LOCK, _scripts_of(self.root):
            self._kept = None  # frees the memory of its network
            workflow = self._initialized(kind, configs, overrides)
            if on_epoch is not None:
                trainer = workflow.parser.get_parsed_content("train#trainer")
                trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: on_epoch(engine.state.epoch))
            workflow.run()
            workflow.finalize()
        return workflow

    def infer(
        self, item: Mapping[str, str], output_dir: str | os.PathLike[str], *configs: str, **overrides: Any
    ) -> None:
        """Infer one image with the workflow of ``configs``, and write the results.

        The workflow is kept with its network, so that later images are only loaded, inferred and saved. It is rebuilt
        for other configs or overrides, if a config or a file in ``models/`` has changed, and after an error. A process
        runs one workflow at a time.

        Args:
            item: ``case_id`` and ``image``, the path of a scan or a slide.
            output_dir: folder of the results.
            *configs: see :py:meth:`run`.
            **overrides: see :py:meth:`run`.
        """
        with _LOCK, _scripts_of(self.root):
            kept, self._kept = self._kept, None  # so that none is kept after an error
            if kept is None or kept.options != (configs, overrides) or kept.version != _version(self._files(kept)):
                del kept
                kept = self._first_run(item, output_dir, configs, overrides)
            else:
                _run_again(kept.workflow, item, Path(output_dir))
            self._kept = kept

    def _first_run(
        self, item: Mapping[str, str], output_dir: str | os.PathLike[str], configs: tuple[str, ...], overrides: Any
    ) -> _KeptWorkflow:
        version = _version(self._files())  # taken before the files are read
        inputs = {"input": item["image"], "case_id": item["case_id"], "output_dir": str(output_dir)}
        workflow = self._initialized("infer", configs, {**inputs, **overrides})
        handlers = workflow.parser.get_parsed_content("handlers")
        handlers = handlers.values() if isinstance(handlers, Mapping) else handlers
        loaders = [handler for handler in handlers if isinstance(handler, CheckpointLoader)]
        files = tuple(Path(loader.load_path) for loader in loaders)
        version |= _version(files)
        workflow.run()
        workflow.finalize()
        for loader in loaders:  # the weights are loaded, and must not be loaded again for every image
            workflow.parser.get_parsed_content("evaluator").remove_event_handler(loader, Events.STARTED)
        return _KeptWorkflow(workflow, (configs, overrides), files, version)

    def _initialized(self, kind: str, configs: tuple[str, ...], overrides: Mapping[str, Any]) -> ConfigWorkflow:
        files = self.config_files(*configs)
        options = {"bundle_root": str(self.root), **overrides}
        workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **options)
        workflow.initialize()
        return workflow

    def _config(self, name: str) -> dict[str, Any]:
        """Return a config of the bundle with the overlay of the installation; ``{}`` where there is none."""
        config = ConfigParser.load_config_files(self.config_files(name)) if self.has(name) else {}
        return dict(config)

    def _files(self, kept: _KeptWorkflow | None = None) -> list[Path]:
        """Return the files that a workflow depends on."""
        patterns = ("configs/*.yaml", "scripts/*.py", "models/*", "models/*/*")
        files = [path for pattern in patterns for path in self.root.glob(pattern)]
        return [*files, *(() if kept is None else kept.files)]

    def _file(self, name: str) -> Path:
        return self.root / "configs" / f"{name}.yaml"

    def _format(self, side: str) -> dict[str, Any]:
        first: dict[str, Any] = next(iter(self.metadata["network_data_format"][side].values()))
        return first


def device_override(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the override of ``device`` for a request; a GPU that does not exist is ignored.

    Example:
        >>> device_override({"device": "cpu"}), device_override({})
        ({'device': 'cpu'}, {})
    """
    device = request.get("device")
    device = device[0] if isinstance(device, (list, tuple)) and device else device
    if not device or (str(device).startswith("cuda") and not torch.cuda.is_available()):
        return {}
    try:
        return {"device": str(torch.device(str(device)))}
    except RuntimeError:
        raise http_error(f"`device` must be cpu or cuda, got {str(device)!r}.") from None


def _run_again(workflow: ConfigWorkflow, item: Mapping[str, str], output_dir: Path) -> None:
    """Run the evaluator of an initialized workflow on another image."""
    content = workflow.parser.get_parsed_content
    content("saver").output_dir = output_dir
    batch = content("results") if "results" in workflow.parser else None
    if isinstance(batch, BatchInference):
        batch.restart([item])
        content("dataset").data = batch.pending
        batch.run(content("evaluator"))
    else:
        content("dataset").data = [dict(item)]
        content("evaluator").run()


def _version(files: Iterable[Path]) -> Version:
    version = {}
    for path in files:
        with suppress(OSError):
            version[path] = input_identity(path)
    return version


@contextmanager
def _scripts_of(root: Path) -> Iterator[None]:
    """Import ``scripts`` from the folder of this bundle, as MONAI does if it is run in that folder."""
    sys.path.insert(0, str(root))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "scripts"}
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.modules.update(before)
