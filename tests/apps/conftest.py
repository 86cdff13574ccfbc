"""Fixtures that run a real MONAI Label server with the app `mil`, a trained network for scans and one for slides."""

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
import torch
import yaml

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource
from monai_mil_ext.networks.nets import QGMIL
from tests.bundles.wsi import BUNDLES, ENCODER, write_small_slide
from tests.programs.orthanc import free_port

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / os.environ.get("VENV_LABEL", ".venv-label") / "bin" / "python"
SITE = ENCODER
STARTED = 600  # seconds, on a busy machine; a server that dies is seen at once


class Server(NamedTuple):
    url: str
    app: Path
    studies: Path

    def post(self, path, status=200, **options):
        answer = requests.post(f"{self.url}{path}", timeout=300, **options)
        assert answer.status_code == status, answer.text
        return answer

    def put(self, path, **options):
        answer = requests.put(f"{self.url}{path}", timeout=60, **options)
        assert answer.status_code == 200, answer.text


def run(*command, **options):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


@pytest.fixture(scope="session")
def label_python():
    """The interpreter of the environment of scripts/label_server. Without a registry, tests are skipped."""
    try:
        run("scripts/label_server", "--setup")
    except RuntimeError as error:
        pytest.skip(str(error)[-500:])
    return PYTHON


@pytest.fixture(scope="session")
def server(label_python, tmp_path_factory):
    """Started once, as scripts/label_server starts it."""
    folder = tmp_path_factory.mktemp("label")
    app, studies = folder / "mil", folder / "studies"
    run(label_python, "scripts/label_demo", "--app", app, "--studies", studies)
    add_slides(app / "model" / "wsi_mil", studies)
    with start_server(app, studies) as started:
        yield started


@contextmanager
def start_server(app, studies, *options, **variables):
    """Start a server as scripts/label_server does; its log is beside the app."""
    port, file = free_port(), app.parent / "log.txt"
    command = ["scripts/label_server", "--app", app, "--studies", studies, "--port", str(port), *options]
    with file.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **variables})
        try:
            wait(f"http://127.0.0.1:{port}", process, file)
            yield Server(f"http://127.0.0.1:{port}", app, studies)
        finally:
            process.terminate()
            process.wait(60)


def make_app(app, site=BUNDLES / "scan_mil" / "configs" / "digits.yaml"):
    """Make an app with the bundle of scans, without weights, and return the folder of the bundle."""
    shutil.copytree(ROOT / "monai_mil_ext" / "apps" / "label" / "mil", app)
    bundle = app / "model" / "scan_mil"
    for part in ("configs", "scripts"):
        shutil.copytree(BUNDLES / "scan_mil" / part, bundle / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(site, bundle / "configs" / "site.yaml")
    return bundle


def wait(url, process, log):
    end = time.monotonic() + STARTED
    while time.monotonic() < end and process.poll() is None:
        try:
            return requests.get(f"{url}/info/", timeout=60).raise_for_status()
        except requests.ConnectionError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")


def add_slides(bundle, studies):
    """An untrained network on tiny tiles, and two slides."""
    shutil.copytree(BUNDLES / "wsi_mil" / "configs", bundle / "configs")
    (bundle / "configs" / "site.yaml").write_text(yaml.safe_dump(SITE))
    (bundle / "models").mkdir()
    torch.manual_seed(0)
    net = QGMIL(in_features=12, num_classes=2, hidden_size=16)
    task = {"num_classes": 2, "class_names": ["benign", "malignant"]}
    save_model(bundle / "models", net, sources=[InstanceSource(width=12)], task=task)
    write_small_slide(studies / "slide_1.tif")


def parts(answer):
    """The JSON and the file of a multipart answer."""
    boundary = answer.headers["content-type"].split("boundary=")[1].encode()
    pieces = [piece.split(b"\r\n\r\n", 1) for piece in answer.content.split(b"--" + boundary)[1:-1]]
    bodies = {head.split(b'name="')[1].split(b'"')[0].decode(): body[:-2] for head, body in pieces}
    return json.loads(bodies["params"]), bodies["image"]
