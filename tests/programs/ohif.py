"""Viewer OHIF as npm has it, and an archive, at one address."""

import json
import subprocess
import tarfile
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import requests

PACKAGE = "@ohif/app@3.13.2"
ROOTS = dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), "/dicom-web")
SOURCE = {"friendlyName": "archive", "name": "archive", **ROOTS, "qidoSupportsIncludeField": False}
SOURCE |= {"imageRendering": "wadors", "thumbnailRendering": "wadors", "enableStudyLazyLoad": True}
SOURCE |= {"supportsWildcard": True, "omitQuotationForMultipartRequest": True, "singlepart": "bulkdata,video"}
SOURCE |= {"bulkDataURI": {"enabled": True, "relativeResolution": "studies"}}
MODULE = {"namespace": "@ohif/extension-default.dataSourcesModule.dicomweb", "sourceName": "dicomweb"}
CONFIG = {"routerBasename": "/", "extensions": [], "modes": [], "showStudyList": True, "maxNumberOfWebWorkers": 1}
CONFIG |= {"investigationalUseDialog": {"option": "never"}, "defaultDataSourceName": "dicomweb"}
CONFIG |= {"dataSources": [{**MODULE, "configuration": SOURCE}]}


def fetch_ohif(folder):
    """Return the folder of the viewer's files, from the registry of npm."""
    pack = ["npm", "pack", PACKAGE, "--silent"]
    try:
        subprocess.run(pack, cwd=folder, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the viewer can't be fetched: {error}")
    (archive,) = folder.glob("ohif-app-*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    viewer = folder / "package" / "dist"
    (viewer / "app-config.js").write_text(f"window.config = {json.dumps(CONFIG)};")
    return viewer


class Handler(SimpleHTTPRequestHandler):
    """Handler of files of the viewer, of its other addresses, which are one page, and of the archive's."""

    protocol_version = "HTTP/1.1"
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".wasm": "application/wasm"}

    def do_GET(self):
        path = urlsplit(self.path).path
        if path.startswith("/dicom-web/"):
            self._ask_archive()
            return
        if not (self.server.viewer / path.strip("/")).is_file():
            self.path = "/index.html"
        super().do_GET()

    def end_headers(self):
        # without these two, the viewer has no memory to share between its threads
        self.send_header("cross-origin-opener-policy", "same-origin")
        self.send_header("cross-origin-embedder-policy", "require-corp")
        super().end_headers()

    def _ask_archive(self):
        answer = requests.get(
            f"{self.server.archive}{self.path}", headers={"accept": self.headers.get("accept", "*/*")}, timeout=60
        )
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers.get("content-type", "text/plain"))
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *args):
        """Stay quiet."""


@contextmanager
def serve_ohif(viewer, archive):
    """Serve the viewer and what ``archive`` answers below ``/dicom-web``, and give the address."""

    def handle(*args):
        return Handler(*args, directory=viewer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), handle)
    server.viewer, server.archive = viewer, archive.removesuffix("/dicom-web")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
