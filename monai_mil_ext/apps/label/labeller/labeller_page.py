"""Requests of the page of readers: cases, pictures, answers, labels and the log."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.resources import files
from typing import Any, NamedTuple

from monai_mil_ext.apps.label.active_learning import UNCERTAINTY
from monai_mil_ext.apps.label.errors import http_error, http_error_from
from monai_mil_ext.apps.label.scan_labels import BAG_LABEL, is_labeled
from monai_mil_ext.utils import RESEARCH_USE
from monai_mil_ext.visualize import SliceDisplay

from .answer_sender import send_answer
from .reader_log import ReaderLog
from .slice_picture import SlicePictures

__all__ = ["PATH", "Labeller", "Reply", "add_labeller"]

PATH = "/labeller"
FILES = {"": "text/html", "/labeller.js": "text/javascript", "/labeller.css": "text/css"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
LONGEST_NAME = 60
SLIDES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs")


class Reply(NamedTuple):
    """Answer to a request."""

    content: bytes
    kind: str = "application/json"


class Labeller:
    """Page for readers, with its requests.

    The answer of a model is shown only when the reader asks, and the log tells whether this was before the label.

    Args:
        app: app of MONAI Label, with ``bundles``.
        log: log of readers.
    """

    def __init__(self, app: Any, log: ReaderLog) -> None:
        self.app = app
        self.log = log
        self._paths: dict[str, str] = {}  # of opened images, since an archive is slow to tell
        self._routes: dict[tuple[str, str], Callable[[Mapping[str, Any]], Any]] = {
            ("GET", "/cases"): self.cases,
            ("GET", "/picture"): self.picture,
            ("GET", "/log"): lambda values: self.log.entries(),
            ("POST", "/open"): self.open,
            ("POST", "/answer"): self.answer,
            ("POST", "/label"): self.label,
            ("POST", "/send"): self.send,
        }

    def __call__(self, method: str, path: str, values: Mapping[str, Any]) -> Reply:
        """Answer a request.

        Args:
            method: ``"GET"`` or ``"POST"``.
            path: path below ``/labeller``.
            values: parameters of a ``GET``, or the JSON object of a ``POST``.

        Raises:
            HTTPException: 404 for another path, and 400 for values that are no such object.
        """
        if method == "GET" and path in FILES:
            name = path.strip("/") or "labeller.html"
            return Reply(files("monai_mil_ext.apps.label.labeller").joinpath(name).read_bytes(), FILES[path])
        route = self._routes.get((method, path))
        if route is None:
            raise http_error("the path must be one of the labeller.", 404)
        if not isinstance(values, Mapping):
            raise http_error("the request must be a JSON object.")
        found = route(values)
        return found if isinstance(found, Reply) else Reply(json.dumps(found).encode())

    def cases(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cases, the most uncertain first and those with a label last, and what can be done with them."""
        store = self.app.datastore()
        cases = []
        for image in sorted(store.list_images()):
            info = store.get_image_info(image)
            if str(info.get("name", "")).lower().endswith(SLIDES):
                continue
            keys = {"label": info.get(BAG_LABEL), UNCERTAINTY: info.get(UNCERTAINTY)}
            cases.append({"id": image, "labeled": is_labeled(store, image), **keys})
        cases.sort(key=lambda case: (case["labeled"], -(-1 if case[UNCERTAINTY] is None else case[UNCERTAINTY])))
        bundle = self._bundle
        state = {"model": bundle.name, "classes": bundle.class_names, "use": RESEARCH_USE}
        state |= {"can_train": bundle.name in self.app._trainers, "has_archive": self._has_archive}
        return {**state, "is_trained": self._is_trained, "cases": cases}

    def open(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Note that a reader has opened a case, and return its number of slices."""
        reader, image = _reader(values), self._image(values)
        self._paths[image] = self.app.datastore().get_image_uri(image)
        count = self._of_scan(self._pictures.count, image)
        self.log.add(reader, image, "opened")
        sides = SliceDisplay(self._bundle.plane).sides[:2]  # letters at the left and the right
        return {"slices": count, "sides": sides, "answer_shown": self.log.saw_answer(reader, image)}

    def picture(self, values: Mapping[str, Any]) -> Reply:
        """Return a slice as PNG."""
        number = str(values.get("slice", ""))
        if not number.isdecimal() or len(number) > 6:
            raise http_error(f"`slice` must be the number of a slice, got {number[:20]!r}.")
        image = values.get("image")
        if image not in self._paths:
            raise http_error(f"`image` must be an opened one, got {str(image)[:40]!r}.", 404)
        return Reply(self._of_scan(lambda path: self._pictures.png(path, int(number)), image), "image/png")

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of the model, and note that the reader has seen it."""
        reader, image = _reader(values), self._image(values)
        params = self._infer(image)["params"]
        trained = params.get("trained_model") or {}
        kept = {key: params.get(key) for key in ("prediction", UNCERTAINTY, "top_slices", "predicted_class", "use")}
        seen = {"prediction": kept["prediction"], "model": trained or self._bundle.name}
        self.log.add(reader, image, "answer", **seen)
        return kept

    def label(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give a case its label; null takes it back."""
        reader, image, label = _reader(values), self._image(values), values.get("label")
        names = self._bundle.class_names
        if label is not None and label not in names:
            raise http_error(f"`label` must be one of {names}, got {str(label)[:40]!r}.")
        store = self.app.datastore()
        before = store.get_image_info(image).get(BAG_LABEL)
        shown = self.log.saw_answer(reader, image)
        store.update_image_info(image, {BAG_LABEL: label, "reader": reader})
        self.log.add(reader, image, "label", label=label, before=before, answer_shown=shown)
        return {"label": label, "answer_shown": shown}

    def send(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Send the answer of the model to the archive."""
        reader, image = _reader(values), self._image(values)
        if not self._has_archive:
            raise http_error("the studies must lie in a DICOMweb archive, got a folder.")
        if not self._is_trained:
            raise http_error("the model must be trained: label scans of two classes, and train.", 409)
        series = send_answer(self._bundle, self.app.datastore(), image)
        self.log.add(reader, image, "send", series=series)
        return {"series": series}

    @property
    def _bundle(self) -> Any:
        """Return the first bundle of scans."""
        bundles = [bundle for bundle in self.app.bundles if not bundle.reads_slides]
        if not bundles:
            raise http_error("the app must have a model of scans.", 404)
        return bundles[0]

    @property
    def _is_trained(self) -> bool:
        return self._bundle.weights.is_file() and not self._bundle.is_demonstration

    @property
    def _has_archive(self) -> bool:
        return "://" in str(self.app.studies)

    @cached_property
    def _pictures(self) -> SlicePictures:
        return SlicePictures(self._bundle.hu_window, self._bundle.plane)

    def _image(self, values: Mapping[str, Any]) -> str:
        image = values.get("image")
        if not isinstance(image, str) or image not in self.app.datastore().list_images():
            raise http_error(f"`image` must be one of the studies, got {str(image)[:40]!r}.", 404)
        return image

    def _of_scan(self, read: Callable[[str], Any], image: str) -> Any:
        path = self._paths[image]
        try:
            return read(path)
        except Exception as error:  # of any of the libraries that read scans
            raise http_error_from(error, path, image) from error

    def _infer(self, image: str) -> dict[str, Any]:
        request = {"model": self._bundle.name, "image": image, "result_write_to_file": False, "save_label": False}
        result: dict[str, Any] = self.app.infer(request)
        return result


def add_labeller(server: Any, labeller: Labeller) -> None:
    """Add the page to an application of FastAPI or Starlette.

    Args:
        server: application.
        labeller: page with its requests.
    """
    routing, responses = (importlib.import_module(f"starlette.{name}") for name in ("routing", "responses"))

    async def endpoint(request: Any) -> Any:
        values = dict(request.query_params)
        if request.method == "POST":
            try:
                values = json.loads(await request.body())
            except (RecursionError, ValueError):
                raise http_error("the request must be a JSON object.") from None
        reply = labeller(request.method, request.url.path.removeprefix(PATH).rstrip("/"), values)
        return responses.Response(reply.content, headers={**HEADERS, "content-type": f"{reply.kind}; charset=utf-8"})

    for path in (PATH, PATH + "/{rest:path}"):
        server.router.routes.insert(0, routing.Route(path, endpoint, methods=["GET", "POST"]))


def _reader(values: Mapping[str, Any]) -> str:
    """Return the name that a reader gave."""
    name = str(values.get("reader") or "").strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise http_error(f"`reader` must be a name of at most {LONGEST_NAME} characters, got {name[:20]!r}.")
    return name
