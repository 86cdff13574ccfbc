"""A local server that answers as the Hugging Face hub does, and small data sets in the layouts of the public ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np

__all__ = ["COMMIT", "Hub", "aem_file", "make_archive", "serve", "torchmil_files"]

LARGE = (".gz", ".h5")  # which the hub keeps in another place, to which it redirects
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Files of one data set, and how its server misbehaves: ``cut`` bytes are sent of a file, then the line breaks."""

    def __init__(self, repo, files, license="apache-2.0"):  # noqa: A002 - as on the card
        self.repo, self.files, self.license = repo, dict(files), license
        self.shown = dict(files)  # of which sizes and hashes are stated
        self.cut: dict[str, int] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.address = ""

    def info(self):
        siblings = []
        for path, content in self.shown.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - as git does
            entry = {"rfilename": path, "size": len(content), "blobId": blob}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
            siblings.append(entry)
        return {"id": self.repo, "sha": COMMIT, "siblings": siblings, "cardData": {"license": self.license}, "tags": []}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        api = re.fullmatch(rf"/api/datasets/{self.hub.repo}(?:/revision/(\w+))?", path)
        file = re.fullmatch(rf"/(datasets/{self.hub.repo}/resolve/{COMMIT}|storage)/(.+)", path)
        if api and (api[1] or COMMIT) in (COMMIT, "main"):
            self._send(200, json.dumps(self.hub.info()).encode(), body, {"Content-Type": "application/json"})
        elif file and file[1] != "storage" and file[2] in self.hub.files and file[2].endswith(LARGE):
            self._send(302, b"", body, {"Location": f"{self.hub.address}/storage/{file[2]}?signed=1"})
        elif file and file[2] in self.hub.files:
            self._file(file[2], body)
        else:
            code = {"X-Error-Code": "RevisionNotFound" if api else "RepoNotFound"}
            self._send(404, b"", body, code)

    def _file(self, name, body):
        content, shown = self.hub.files[name], self.hub.shown[name]
        facts = {
            "ETag": f'"{hashlib.sha256(shown).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        if start:
            facts["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[first:], body, facts, self.hub.cut.pop(name, None) if body else None)

    def _send(self, status, content, body, headers, cut=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def serve(hub):
    """Serve a data set, and yield the hub with its address."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_archive(arrays, folder=""):
    """Return a .tar.gz with a .npy file for each array; the same bytes each time."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, values in arrays.items():
            file = io.BytesIO()
            np.save(file, values)
            member = tarfile.TarInfo(f"{folder}{name}.npy")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
    return stream.getvalue()


def torchmil_files(encoder, of_instances="slice_labels", prefix="dataset/", num_bags=40, seed=0):
    """Return the files of a data set of torchmil: a fifth is tested, and the table has a row for each instance."""
    rng = np.random.default_rng(seed)
    kinds = {"features": {}, "labels": {}, of_instances: {}, "coords": {}}
    rows = ["bag_name,split"]
    for i in range(num_bags):
        size = int(rng.integers(6, 12))
        labels = np.zeros(size, np.int64)
        if i % 2:
            labels[2 : 2 + int(rng.integers(1, 4))] = 1
        features = rng.normal(size=(size, 8)).astype(np.float32)
        features[:, 0] += 4 * labels
        values = (features, np.array([labels.max()]), labels, np.zeros((size, 2), np.int64))
        for kind, array in zip(kinds, values, strict=True):
            kinds[kind][f"bag_{i:02d}"] = array
        rows += [f"bag_{i:02d},{'test' if i % 5 < 2 else 'train'}"] * size
    features = make_archive(kinds.pop("features"), f"features_{encoder}/")
    files = {f"{prefix}{kind}.tar.gz": make_archive(arrays, f"home/{kind}/") for kind, arrays in kinds.items()}
    return {
        **files,
        f"{prefix}features/features_{encoder}.tar.gz": features,
        f"{prefix}splits.csv": "\n".join(rows).encode(),
        "README.md": b"card",
    }


def aem_file(names, num_classes=2, seed=0):
    """Return an HDF5 file of AEM: a group for each slide with ``feat``, ``coords`` and the attribute ``label``."""
    rng, stream = np.random.default_rng(seed), io.BytesIO()
    with h5py.File(stream, "w") as file:
        for i, name in enumerate(names):
            group = file.create_group(name)
            label = i % num_classes
            group["feat"] = (rng.normal(size=(7, 6)) + 2 * label).astype(np.float16)
            group["coords"] = np.arange(14).reshape(7, 2) * 512
            group.attrs["label"] = label
    return stream.getvalue()
