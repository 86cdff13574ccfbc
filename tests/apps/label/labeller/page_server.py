"""Server of the page of readers with a stand-in for the app of MONAI Label."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import nibabel as nib
import numpy as np

from monai_mil_ext.apps.label.labeller import Labeller, ReaderLog
from monai_mil_ext.apps.label.labeller.labeller_page import HEADERS, PATH
from tests.apps.label.server_parts import Datastore

HOSTILE = "<img src=x onerror=document.title='broken'>"


class Scans(Datastore):
    """Scans of four slices."""

    def get_image_uri(self, image):
        path = self.folder / f"scan_{self.list_images().index(image)}.nii"
        if not path.exists():
            voxels = np.random.default_rng(0).normal(size=(8, 8, 4)).astype(np.float32)
            nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 5, 1])), path)
        return str(path)

    def get_labels_by_image_id(self, image):
        return {}


class App:
    """App with a model of scans that answers at once, and whose training takes two looks."""

    def __init__(self, folder, studies="/studies"):
        self.store, self.studies = Scans(folder, images=("sure", HOSTILE, "unsure")), studies
        for image, uncertainty in (("sure", 0.1), ("unsure", 0.9)):
            self.store.infos[image]["uncertainty"] = uncertainty
        weights = SimpleNamespace(is_file=lambda: True)
        self.bundles = [
            SimpleNamespace(
                name="scan_mil", class_names=["no tumor", "tumor"], reads_slides=False, weights=weights,
                is_demonstration=False, hu_window=None, plane="axial",
            )
        ]  # fmt: skip
        self._trainers, self.requests, self.looks = {"scan_mil": None}, [], 0

    def datastore(self):
        return self.store

    def infer(self, request):
        self.requests.append(request)
        prediction = [{"label": "no tumor", "score": 0.2}, {"label": "tumor", "score": 0.8}]
        model = {"name": "scan_mil", "version": "1", "weights": "abc"}
        params = {"prediction": prediction, "uncertainty": 0.7, "top_slices": [3, 1], "trained_model": model}
        return {"file": "", "params": {**params, "use": "research"}}

    def task(self, method, path):
        """Answers of MONAI Label itself to the page."""
        if path.startswith(("/train/", "/scoring/")):
            self.looks += method == "GET"
            return {"status": "DONE" if self.looks > 1 else "RUNNING"}
        return {"train_stats": {"scan_mil": {"epoch": 1, "total_epochs": 2}}}


def start(folder, script=""):
    """Start a server with ``script`` behind that of the page; returns it with its app and its log."""
    app, log = App(folder), ReaderLog(folder / "labels.sqlite")
    page = Labeller(app, log)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self):
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                if address.path.startswith(PATH):
                    values = json.loads(body) if body else dict(parse_qsl(address.query))
                    status, (content, kind) = 200, page(self.command, address.path.removeprefix(PATH), values)
                else:
                    status, content, kind = 200, json.dumps(app.task(self.command, address.path)).encode(), "text/json"
            except Exception as error:
                status, kind = getattr(error, "status_code", 500), "application/json"
                content = json.dumps({"detail": str(error)}).encode()
            content += script.encode() if address.path.endswith(".js") else b""
            self.send_response(status)
            for name, value in {**HEADERS, "content-type": kind, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            self.answer()

        def do_POST(self):
            self.answer()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, app, log
