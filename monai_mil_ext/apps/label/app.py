"""MONAI Label app that serves and trains the bundles in its folder ``model/``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.data import ScoreBands
from monai_mil_ext.utils import RESEARCH_USE

from ._monailabel import MONAILabelApp
from .active_learning import BatchInfer, UncertaintyScoring, UncertaintyStrategy
from .bundle_runner import BundleRunner
from .errors import http_error
from .scan_infer import ScanInferTask
from .scan_labels import BAG_LABEL, class_index
from .scan_train import ScanTrainTask
from .server import SafeApp
from .server.client_names import exists
from .slide_infer import SlideInferTask

__all__ = ["LabelApp"]

UPLOAD = re.compile(r"tmp[a-z0-9_]{8}(\.\w+)*")  # name that the server gives to an upload


class LabelApp(SafeApp, MONAILabelApp):  # MONAI Label looks for its own class among the direct bases
    """MONAI Label app of the bundles in ``<app_dir>/model``, for scans and for slides.

    ``--conf models NAME,NAME`` selects bundles, and ``--conf top_k 4,12`` sets the last rank of every band of slices.
    An image is the ID or path of a study, or an upload; any other path is refused.

    Args:
        app_dir: folder of ``main.py`` and ``model/``.
        studies: folder or address of the images.
        conf: options of ``--conf``.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None = None) -> None:
        conf = dict(conf or {})
        wanted = conf.get("models")
        folders = sorted(path.parent.parent for path in Path(app_dir).glob("model/*/configs/metadata.json"))
        bundles = [BundleRunner(path) for path in folders]
        self.bundles = [b for b in bundles if wanted is None or b.name in wanted.split(",")]
        self._top_k = tuple(int(rank) for rank in conf.get("top_k", "4,12").split(","))
        super().__init__(app_dir, studies, conf, name="mil", description=f"Multiple-instance learning; {RESEARCH_USE}")

    def init_infers(self) -> dict[str, Any]:
        """Return an inference task for each bundle with an inference config."""
        bands = ScoreBands(top_k=self._top_k)
        bundles = [bundle for bundle in self.bundles if bundle.has("inference")]
        return {b.name: SlideInferTask(b) if b.reads_slides else ScanInferTask(b, bands) for b in bundles}

    def init_trainers(self) -> dict[str, Any]:
        """Return a training task for each bundle that learns from labels of scans."""
        bundles = [b for b in self.bundles if b.has("train", "scan_labels") and not b.reads_slides]
        return {bundle.name: ScanTrainTask(bundle) for bundle in bundles}

    def init_strategies(self) -> dict[str, Any]:
        """Return the active learning strategy, by name."""
        return {"most_uncertain_first": UncertaintyStrategy()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """Return the scoring method, by name; it uses the first model with weights."""
        models = [name for name, task in self._infers.items() if task.is_valid()]
        return {"uncertainty": UncertaintyScoring(self.infer, models[0])} if models else {}

    def init_batch_infer(self) -> Any:
        """Return the batch inference, which continues after a failure."""
        return BatchInfer()

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Run the inference of ``request``; images that do not exist are refused."""
        model, image = request.get("model"), request.get("image")
        if model not in self._infers:
            raise http_error(f"`model` must be one of {sorted(self._infers)}, got {model!r}.", 404)
        if not isinstance(image, str) or not image:
            raise http_error("`image` must be the id of an image or a file, got none.")
        self._check_tag(request)
        if exists(image):
            self._check_path(Path(image))
        elif not (datastore or self.datastore()).get_image_uri(image):
            raise http_error(f"`image` must be one of the studies, got {image!r}.", 404)
        result: dict[str, Any] = super().infer(request, datastore)
        return result

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Infer a slide as a whole, since a bag can't be split into independent regions as MONAI Label does."""
        return self.infer(request, datastore)

    def check_info(self, info: Mapping[str, Any]) -> None:
        """Refuse a label of a scan that is no class of any model."""
        label, names = info.get(BAG_LABEL), [bundle.class_names for bundle in self.bundles if not bundle.reads_slides]
        if label is not None and all(class_index(label, classes) is None for classes in names):
            raise http_error(f"`{BAG_LABEL}` must be a class of {' or '.join(map(str, names))}, got {label!r}.")

    def _check_path(self, image: Path) -> None:
        """Refuse a path outside of the studies, since the server forwards any path that a client sends."""
        path = image.resolve()
        if path.parent == Path(tempfile.gettempdir()).resolve() and UPLOAD.fullmatch(path.name):
            return
        sessions = self.sessions()
        roots = [self.studies, *([sessions.store_path] if sessions else [])]
        if not any(path.is_relative_to(Path(root).resolve()) for root in roots):
            raise http_error("`image` must be one of the studies, got a path outside of them.", 403)
