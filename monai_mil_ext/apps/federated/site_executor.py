"""Executor of NVIDIA FLARE: the tasks of a federated training at a site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.data import ModelRecord
from monai_mil_ext.data.models import RECORD_FILE
from monai_mil_ext.utils import load_json

from ._flare import (
    AppConstants,
    EventType,
    Executor,
    FLContext,
    FLContextKey,
    FLModel,
    FLModelUtils,
    ReturnCode,
    Shareable,
    Signal,
    make_reply,
)
from .federated_site import FederatedSite, SiteRefusedError

__all__ = ["SiteExecutor"]

SETTINGS = "monai_mil_ext.json"  # in the folder `local` of a site, which its administrator writes
FINAL_MODEL = "SRV_FL_global_model.pt"  # name of the server's last model when it is validated
SITE = "{site}"  # in any text of the settings: the name of the site


class SiteExecutor(Executor):
    """Executor of the tasks ``train`` and ``validate`` at a site.

    It is named in the job and runs from the package that the site has installed: a job has no code. The record of the
    model, ``model.json``, comes with the job; the paths of the site are read from ``local/monai_mil_ext.json``.

    Args:
        local_epochs: number of epochs of a round.
        options: options of the bundle, numbers, see :py:class:`FederatedSite`.
    """

    def __init__(self, local_epochs: int = 1, options: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.local_epochs, self.options = local_epochs, options
        self._site: FederatedSite | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Check the site when a job starts, and end its workflows when the job ends."""
        if event_type == EventType.START_RUN:
            try:
                self._site = self._open(fl_ctx)
            except Exception as error:
                self.log_exception(fl_ctx, "the site can't take part")
                self.system_panic(_reason(error, fl_ctx.get_identity_name()), fl_ctx)
        elif event_type == EventType.END_RUN and self._site is not None:
            self._site.close()

    def _open(self, fl_ctx: FLContext) -> FederatedSite:
        name = fl_ctx.get_identity_name()
        workspace = fl_ctx.get_engine().get_workspace()
        record = ModelRecord.read(Path(fl_ctx.get_prop(FLContextKey.APP_ROOT), "config", RECORD_FILE))
        file = Path(workspace.get_site_config_dir(), SETTINGS)
        if not file.is_file():
            raise SiteRefusedError(f"{name} must have its settings in local/{SETTINGS}, got none.")
        return FederatedSite(record, name, _filled(load_json(file), name), self.options, self.local_epochs)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Train a round, or validate a model of the server and keep the last one."""
        if self._site is None:
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        weights = FLModelUtils.from_shareable(shareable).params
        if task_name == AppConstants.TASK_TRAIN:
            differences, steps, metrics = self._site.train(weights)
            arrays = {key: value.numpy() for key, value in differences.items()}
            sent = FLModel("DIFF", arrays, metrics=metrics, meta={"NUM_STEPS_CURRENT_ROUND": steps})
            return FLModelUtils.to_shareable(sent)
        if task_name != AppConstants.TASK_VALIDATION:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if shareable.get_header(AppConstants.MODEL_OWNER) == FINAL_MODEL:
            self._site.keep(weights)
        return FLModelUtils.to_shareable(FLModel(metrics=self._site.evaluate(weights)))


def _reason(error: Exception, site: str) -> str:
    """Return what the server is told: other errors may name a patient, and stay in the log of the site."""
    return str(error) if isinstance(error, SiteRefusedError) else f"{site} has a {type(error).__name__}, see its log"


def _filled(settings: Any, site: str) -> dict[str, Any]:
    """Return settings with the name of the site in their texts."""
    if not isinstance(settings, dict):
        raise SiteRefusedError(f"local/{SETTINGS} must be an object of settings, got {type(settings).__name__}.")
    return {key: _fill(value, site) for key, value in settings.items()}


def _fill(value: Any, site: str) -> Any:
    if isinstance(value, str):
        return value.replace(SITE, site)
    if isinstance(value, list):
        return [_fill(item, site) for item in value]
    return {key: _fill(item, site) for key, item in value.items()} if isinstance(value, dict) else value
