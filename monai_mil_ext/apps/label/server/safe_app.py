"""App of MONAI Label that guards its server, its labels and its processes."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from monai_mil_ext.apps.label._monailabel import MONAILabelApp
from monai_mil_ext.apps.label.errors import http_error

from .archive_store import ArchiveStore
from .client_errors import explain, without_paths
from .client_names import check_name
from .label_store import FINAL, LabelStore
from .request_files import RequestFiles
from .request_guard import RequestGuard
from .request_rules import RequestRules
from .sign_in import accept_signed_tokens
from .task_process import exit_with_parent
from .uploaded_archives import UploadSessions

__all__ = ["SafeApp"]

SEG_TOOL = "itkimage2segimage"
TABLE = "labels.sqlite"
TEMPORARY = "monai_mil_temporary"
SERVER = "MONAI_MIL_SERVER"  # variable with the process ID of the server, for the processes of its tasks
logger = logging.getLogger(__name__)


class SafeApp(MONAILabelApp):
    """App with the datastores, sessions and request rules of this package.

    ``--conf max_waiting 16`` bounds the requests with a model at a time, and ``--conf max_upload_gb 8`` an upload.
    ``--conf temporary DIR`` has temporary files in that folder instead of the app's.
    """

    def init_datastore(self) -> Any:
        """Return the datastore of a folder or of an archive."""
        table = Path(self.app_dir) / TABLE
        stores: dict[str, Any] = {"LocalDatastore": LabelStore, "DICOMWebDatastore": partial(ArchiveStore, table=table)}
        with patch.multiple("monailabel.interfaces.app", **stores):
            store = super().init_datastore()
        if isinstance(store, LabelStore):
            store.check_info = self.check_info
            store.mask_rule = self.mask_label
        return store

    def check_info(self, info: Mapping[str, Any]) -> None:
        """Refuse the info of an image with a label that is no class of any model."""

    def mask_label(self, file: str, info: Mapping[str, Any]) -> int | str | None:
        """Return the label of a scan that a mask of a reader implies, or None."""
        return None

    def on_init_complete(self) -> None:
        """Put the rules before the server, which is about to start."""
        server = importlib.import_module("monailabel.app")
        settings = importlib.import_module("monailabel.config").settings
        if settings.MONAI_LABEL_AUTH_ENABLE:
            accept_signed_tokens(importlib.import_module("monailabel.endpoints.user.auth"))
        rules = RequestRules(
            self._names,
            [str(origin) for origin in settings.MONAI_LABEL_CORS_ORIGINS],
            has_archive="://" in self.studies,
            largest_upload=int(float(self.conf.get("max_upload_gb", 8)) * 2**30),
        )
        os.environ[SERVER] = str(os.getpid())
        files = RequestFiles(Path(self.conf.get("temporary") or self.app_dir) / TEMPORARY)
        files.use()
        stack, waiting = server.app.middleware_stack, int(self.conf.get("max_waiting", 16))
        server.app.middleware_stack = RequestGuard(stack, rules, waiting, files.request)
        super().on_init_complete()

    def train(self, request: Mapping[str, Any]) -> Any:
        """Train a model."""
        return self._task(super().train, request)

    def bundle_path(self, model: Any) -> Any:
        """Return nothing: the app has no bundles of MONAI Label's kind.

        The server asks this of each task before it starts one, so an unknown model is refused here.
        """
        if model is not None:
            self._check_model(model)

    def scoring(self, request: Mapping[str, Any], datastore: Any = None) -> Any:
        """Score images."""
        return self._task(super().scoring, request, datastore)

    def batch_infer(self, request: Mapping[str, Any], datastore: Any = None) -> Any:
        """Infer several images."""
        self._check_tag(request)
        return self._task(super().batch_infer, request, datastore)

    def _names(self) -> dict[str, Collection[str]]:
        kinds = {"models": self._infers, "trainers": self._trainers, "strategies": self._strategies}
        return {**kinds, "scoring": self._scoring_methods}

    def _task(self, task: Callable[..., Any], *args: Any) -> Any:
        """Run a task; in a process of its own, which ends with the server, an error is one line."""
        if self._server_mode:
            return task(*args)
        exit_with_parent(int(os.environ.get(SERVER, os.getppid())))
        try:
            return task(*args)
        except Exception as error:
            reason = getattr(error, "detail", None) or explain(error)[1]
            raise SystemExit(f"{type(error).__name__}: {without_paths(str(reason))}") from None

    def _check_model(self, model: Any) -> None:
        names = sorted(self._infers)
        if model not in names:  # which may be any value of JSON, such as a list
            raise http_error(f"`model` must be one of {names}, got {str(model)[:40]!r}.", 404)

    def _check_tag(self, request: Mapping[str, Any]) -> None:
        if check_name(request.get("label_tag") or "original", "label_tag") == FINAL:
            raise http_error(f"`label_tag` must not be {FINAL}, since that tag holds the labels of readers.")

    def _load_sessions(self, load: bool = False) -> Any:
        sessions = super()._load_sessions(load)
        return UploadSessions(sessions.store_path, sessions.expiry) if sessions is not None else None

    def _download_dcmqi_tools(self) -> None:
        """Use the tool that is installed beside Python; MONAI Label would download one."""
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        if not shutil.which(SEG_TOOL):
            logger.warning("%s is missing (pip install dcmqi): masks can't be stored in the archive", SEG_TOOL)
