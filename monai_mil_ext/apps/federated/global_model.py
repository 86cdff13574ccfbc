"""Component of NVIDIA FLARE's server: saves the global model so that a bundle loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from monai_mil_ext.data import ModelRecord
from monai_mil_ext.data.models import AT_SITE, RECORD_FILE, file_sha256, load_weights
from monai_mil_ext.utils.files import save_tensors

from ._flare import EventType, FLComponent, FLContext, FLContextKey

__all__ = ["GlobalModelSaver"]

FINAL_WEIGHTS = "FL_global_model.pt"  # of the server's persistor


class GlobalModelSaver(FLComponent):
    """Component of a server that writes ``models/model.pt`` and ``models/model.json`` when a job ends.

    Args:
        statistics_at_site: whether each site standardizes features by statistics of its own, which the server does not
            know: the record says so, and the model is used with those of a site.
        folder: name of the folder, below that of the job's app.
    """

    def __init__(self, statistics_at_site: bool = False, folder: str = "models") -> None:
        super().__init__()
        self.statistics_at_site, self.folder = statistics_at_site, folder

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Save at the end of a job that has trained."""
        app = Path(fl_ctx.get_prop(FLContextKey.APP_ROOT) or ".")
        if event_type == EventType.END_RUN and (app / FINAL_WEIGHTS).is_file():
            record = ModelRecord.read(app / "config" / RECORD_FILE)
            preprocessing = {AT_SITE: ["mean", "scale"]} if self.statistics_at_site else {}
            known = replace(record, preprocessing=preprocessing, date=ModelRecord(record.name).date)
            save_global_model(app / FINAL_WEIGHTS, known, app / self.folder)
            self.log_info(fl_ctx, f"the global model is in {self.folder}")


def save_global_model(weights: Path, record: ModelRecord, folder: Path) -> None:
    """Write the weights that a server has saved, and their record."""
    file = folder / "model.pt"
    save_tensors(file, load_weights(weights))
    entry = {"file": file.name, "sha256": file_sha256(file)}
    replace(record, weights=(entry,)).write(folder / RECORD_FILE)
