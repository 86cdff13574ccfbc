"""A bundle that a server answers with, run in the server's own process."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["ServedBundle"]

SITE = "site"
_one_at_a_time = threading.RLock()  # bundles share the module name `scripts`, and one GPU


class ServedBundle:
    """A folder with ``configs/`` and ``models/model.pt``, whose own workflows answer and learn.

    ``configs/site.yaml``, where it is there, goes over every workflow: what this installation sets.

    Args:
        root: the folder of the bundle.

    Raises:
        FileNotFoundError: when it has no ``configs/metadata.json``.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()
        self.metadata: dict[str, Any] = json.loads((self.root / "configs" / "metadata.json").read_text("utf-8"))

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.root.name

    @property
    def weights(self) -> Path:
        """Where its trained network is."""
        return self.root / "models" / "model.pt"

    @property
    def reads_slides(self) -> bool:
        """Whether its images are whole slides, and not scans."""
        return bool(self._format("inputs")["modality"] == "WSI")

    @property
    def class_names(self) -> list[str]:
        """Of its classes, in the order of their numbers."""
        names = self._format("outputs")["channel_def"]
        return [names[key] for key in sorted(names, key=int)]

    def has(self, *configs: str) -> bool:
        """Whether all of ``configs`` are there."""
        return all(self._file(name).is_file() for name in configs)

    def run(self, kind: str, *configs: str, **overrides: Any) -> ConfigWorkflow:
        """Run the workflow of ``configs``, one at a time in a process, and give it back when it is done.

        Args:
            kind: ``"infer"`` or ``"train"``.
            *configs: names of files in ``configs/``; later ones go over earlier ones.
            **overrides: of values; a text that begins with ``$``, ``@`` or ``%`` is an expression, so none may come
                from a client.
        """
        files = [str(self._file(name)) for name in (*configs, *([SITE] if self.has(SITE) else []))]
        with _one_at_a_time, _scripts_of(self.root):
            given = {"bundle_root": str(self.root), **overrides}
            workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **given)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        return workflow

    def _file(self, name: str) -> Path:
        return self.root / "configs" / f"{name}.yaml"

    def _format(self, side: str) -> dict[str, Any]:
        first: dict[str, Any] = next(iter(self.metadata["network_data_format"][side].values()))
        return first


@contextmanager
def _scripts_of(root: Path) -> Iterator[None]:
    """Let ``scripts`` be the folder of this bundle, as it is where MONAI runs a bundle in its own folder."""
    sys.path.insert(0, str(root))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "scripts"}
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.modules.update(before)
