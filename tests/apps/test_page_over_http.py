"""Tests of the commands that the page of MONAI Label shows, on a server of their own."""

import gzip
import json
import os
import re
import shutil
import subprocess
import time

import pytest
import requests

from tests.pages.runner import blocks

from .conftest import ROOT, start_server

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="the requests on the page of MONAI Label work as shown")]
PAGE = ROOT / "docs" / "how-to" / "monai-label.md"
FAIL = 'set -eu; curl() { echo "$*" >> log; command curl --fail-with-body -sS "$@" >> log; echo >> log; }\n'


def wait_for(server, task):
    end = time.monotonic() + 240
    while (found := requests.get(f"{server.url}/{task}", timeout=60).json())["status"] not in ("DONE", "ERROR"):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found["status"]


def test_the_requests_of_the_page_work_as_shown(server, tmp_path):
    (block,) = [text for text in blocks(PAGE, "bash") if text.startswith("U=")]
    app, studies = (shutil.copytree(path, tmp_path / path.name) for path in (server.app, server.studies))
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress((studies / "scan_44.nii").read_bytes()))
    (tmp_path / "label.json").write_text(json.dumps({"bag_label": 0}))
    shown = block.replace("http://127.0.0.1:8000", "$ADDRESS").replace('"max_epochs": 100', '"max_epochs": 1')
    assert len(re.findall(r"^curl", shown, re.MULTILINE)) == 15
    lines, slides = shown.split("# with a bundle and a slide")
    with start_server(app, studies) as started:
        for part in (lines, 'U="$ADDRESS"\n#' + slides):
            command = ["bash", "-c", FAIL + part]
            environment = {**os.environ, "ADDRESS": started.url}
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stderr, (tmp_path / "log").read_text()[-1000:])
        assert [wait_for(started, task) for task in ("train/", "scoring/", "batch/infer")] == ["DONE"] * 3
        info = requests.get(f"{started.url}/datastore/image/info?image=scan_41", timeout=60).json()
        assert info["bag_label"] == 1
    assert (tmp_path / "labels.nii").stat().st_size > 352
    answers = (tmp_path / "log").read_text()
    assert '"type": "FeatureCollection"' in answers
    assert '"elements"' in answers
