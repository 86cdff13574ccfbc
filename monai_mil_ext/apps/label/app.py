"""The app: every trained bundle in its folder ``model/`` answers, and learns."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.data import SliceBands
from monai_mil_ext.utils import RESEARCH_USE

from .batch import TolerantBatch
from .refusal import refusal
from .scan_answer import ScanAnswer
from .scan_training import ScanTraining
from .served_bundle import ServedBundle
from .server_parts import MONAILabelApp
from .slide_answer import SlideAnswer
from .uncertainty import MostUncertainFirst, UncertaintyScoring

__all__ = ["LabelApp"]

UPLOAD = re.compile(r"tmp[a-z0-9_]{8}(\.\w+)*")  # as the server calls what it was sent


class LabelApp(MONAILabelApp):
    """Answers with the bundles in ``<app_dir>/model``: those of scans and those of slides.

    ``--conf models NAME,NAME`` takes some of them, and ``--conf top_k 4,12`` sets the last rank of every band of
    slices. An image is one of the studies, by its id or its path, or an upload; any other path is refused.

    Args:
        app_dir: the folder of ``main.py`` and ``model/``.
        studies: the folder, or the address, of the images.
        conf: of ``--conf``.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None = None) -> None:
        conf = dict(conf or {})
        wanted = conf.get("models")
        folders = sorted(path.parent.parent for path in Path(app_dir).glob("model/*/configs/metadata.json"))
        bundles = [ServedBundle(path) for path in folders]
        self.bundles = [one for one in bundles if wanted is None or one.name in wanted.split(",")]
        self._top_k = tuple(int(rank) for rank in conf.get("top_k", "4,12").split(","))
        super().__init__(app_dir, studies, conf, name="mil", description=f"Multiple-instance learning; {RESEARCH_USE}")

    def init_infers(self) -> dict[str, Any]:
        """A model for every bundle that can answer."""
        bands = SliceBands(top_k=self._top_k)
        answering = [one for one in self.bundles if one.has("inference")]
        return {one.name: SlideAnswer(one) if one.reads_slides else ScanAnswer(one, bands) for one in answering}

    def init_trainers(self) -> dict[str, Any]:
        """A trainer for every bundle that learns from labels of scans."""
        learning = [one for one in self.bundles if one.has("train", "scan_labels") and not one.reads_slides]
        return {one.name: ScanTraining(one) for one in learning}

    def init_strategies(self) -> dict[str, Any]:
        """The one strategy, under its name."""
        return {"most_uncertain_first": MostUncertainFirst()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """The one method, which asks the first of the models."""
        models = [name for name, task in self._infers.items() if task.is_valid()]
        return {"uncertainty": UncertaintyScoring(self.infer, models[0])} if models else {}

    def init_batch_infer(self) -> Any:
        """A batch that one image does not stop."""
        return TolerantBatch()

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer ``request``; an image that is none is refused."""
        model, image = request.get("model"), request.get("image")
        if model not in self._infers:
            raise refusal(f"`model` must be one of {sorted(self._infers)}, got {model!r}.", 404)
        if not isinstance(image, str) or not image:
            raise refusal("`image` must be the id of an image or a file, got none.")
        if Path(image).exists():
            self._check_place(Path(image))
        elif not (datastore or self.datastore()).get_image_uri(image):
            raise refusal(f"`image` must be one of the studies, got {image!r}.", 404)
        answer: dict[str, Any] = super().infer(request, datastore)
        return answer

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer to a slide as a whole: a bag can't be cut into independent pieces, as MONAI Label would."""
        return self.infer(request, datastore)

    def _check_place(self, image: Path) -> None:
        """The server passes on any path that a client sends."""
        place = image.resolve()
        if place.parent == Path(tempfile.gettempdir()).resolve() and UPLOAD.fullmatch(place.name):
            return
        sessions = self.sessions()
        roots = [self.studies, *([sessions.store_path] if sessions else [])]
        if not any(place.is_relative_to(Path(root).resolve()) for root in roots):
            raise refusal("`image` must be one of the studies, got a path outside of them.", 403)
