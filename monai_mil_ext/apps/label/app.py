"""MONAI Label app that serves and trains the bundles in its folder ``model/``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.data import ScoreBands
from monai_mil_ext.utils import RESEARCH_USE

from ._monailabel import MONAILabelApp
from .active_learning import BatchInfer, UncertaintyScoring, UncertaintyStrategy, nothing_to_label
from .bundle_runner import BundleRunner
from .errors import http_error
from .labeller import Labeller, ReaderLog, add_labeller
from .mask_labels import MaskRule
from .scan_infer import ScanInferTask
from .scan_labels import BAG_LABEL, class_index
from .scan_train import ScanTrainTask
from .server import SafeApp
from .server.client_names import exists
from .server.request_files import request_folder
from .server.safe_app import TABLE
from .slice_scoring import SliceScoring
from .slide_infer import SlideInferTask

__all__ = ["LabelApp"]

UNTRAINED = "it has no weights; label scans of two classes and train, or put a trained model into models/trained"
DEMONSTRATION = "its weights only show how it works; label scans of two classes and train"


class LabelApp(SafeApp, MONAILabelApp):  # MONAI Label looks for its own class among the direct bases
    """MONAI Label app of the bundles in ``<app_dir>/model``, for scans and for slides.

    ``--conf models NAME,NAME`` selects bundles, and ``--conf top_k 4,12`` sets the last rank of every band of slices.
    ``--conf mask_label nonempty`` or ``names`` makes the mask of a reader a label of its scan (:py:class:`MaskRule`).
    An image is the ID or path of a study, or an upload; any other path is refused.

    Args:
        app_dir: folder of ``main.py`` and ``model/``.
        studies: folder or address of the images.
        conf: options of ``--conf``.

    Raises:
        ValueError: when a ``site.yaml`` asks for pictures or a viewer, which no client would get.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None = None) -> None:
        conf = dict(conf or {})
        wanted = conf.get("models")
        folders = sorted(path.parent.parent for path in Path(app_dir).glob("model/*/configs/metadata.json"))
        bundles = [BundleRunner(path) for path in folders]
        self.bundles = [b for b in bundles if wanted is None or b.name in wanted.split(",")]
        for bundle in self.bundles:
            bundle.check_site()
        self._top_k = tuple(int(rank) for rank in conf.get("top_k", "4,12").split(","))
        scans = [bundle.class_names for bundle in self.bundles if not bundle.reads_slides]
        self._mask_rule = MaskRule(conf.get("mask_label"), scans)
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
        """Return the scoring methods, by name; by default they use the first model with weights, or else the first."""
        models = sorted(self._infers, key=lambda name: not self._infers[name].is_valid())
        scans = [name for name in models if isinstance(self._infers[name], ScanInferTask)]
        methods: dict[str, Any] = {"uncertainty": UncertaintyScoring(self.infer, models[0])} if models else {}
        return {**methods, **({"slices": SliceScoring(self.infer, scans[0])} if scans else {})}

    def init_batch_infer(self) -> Any:
        """Return the batch inference, which continues after a failure."""
        return BatchInfer()

    def info(self) -> dict[str, Any]:
        """Return what clients show; ``untrained`` has the reason why a model is not in ``models``, or says little."""
        shown = {bundle.name: DEMONSTRATION for bundle in self.bundles if bundle.is_demonstration}
        missing = {name: UNTRAINED for name, task in self._infers.items() if not task.is_valid()}
        return {**super().info(), "untrained": shown | missing}

    def mask_label(self, file: str, info: Mapping[str, Any]) -> int | str | None:
        """Return the label of a scan that a mask of a reader implies, or None."""
        return self._mask_rule(file, info)

    def on_init_complete(self) -> None:
        """Make ``activelearning`` say why it has nothing to label, and add the page of readers.

        With MONAI Label's own login there is no page, since a browser does not send its tokens.
        """
        endpoint: Any = importlib.import_module("monailabel.endpoints.activelearning")
        ask = endpoint.sample

        def sample(strategy: str, params: Any = None, user: str | None = None) -> Any:
            return ask(strategy, params, user) or {"waits_for": nothing_to_label(self.datastore())}

        endpoint.sample = sample
        if not importlib.import_module("monailabel.config").settings.MONAI_LABEL_AUTH_ENABLE:
            labeller = Labeller(self, ReaderLog(Path(self.app_dir) / TABLE))
            add_labeller(importlib.import_module("monailabel.app").app, labeller)
        super().on_init_complete()

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Run the inference of ``request``; images that do not exist are refused."""
        model, image = request.get("model"), request.get("image")
        self._check_model(model)
        if not isinstance(image, str) or not image:
            raise http_error("`image` must be the id of an image or a file, got none.")
        if not self._infers[model].is_valid():
            raise http_error(f"`model` must be trained: {UNTRAINED}.", 409)
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
        sessions, own = self.sessions(), request_folder()
        roots = [self.studies, sessions.store_path if sessions else None, own]
        if not any(path.is_relative_to(Path(root).resolve()) for root in roots if root):
            raise http_error("`image` must be one of the studies, got a path outside of them.", 403)
