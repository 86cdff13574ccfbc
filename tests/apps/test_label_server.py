"""Tests of the environment that scripts/label_server makes."""

import json
import os
import shutil
import subprocess

import pytest

from .conftest import PYTHON, ROOT, run

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="the environment of a real MONAI Label server")]
FOUND = """
import json, sys
from importlib.util import find_spec
import monailabel.app, pydicom, pydicom_seg, torch
places = {name: spec.origin for name in ("pydicom_seg", "torchvision") if (spec := find_spec(name))}
versions = {one.__name__: one.__version__.split("+")[0] for one in (pydicom, pydicom_seg, torch)}
foreign = [place for place in sys.path if place.endswith("monailabel_env")]
print(json.dumps([places, versions, "torchvision" in sys.modules, foreign]))
"""


def pins():
    """The first of scripts/label_constraints.txt and constraints.txt that pins a package."""
    files = (ROOT / name for name in ("constraints.txt", "scripts/label_constraints.txt"))
    lines = [line for file in files for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_label_server_environment_has_real_packages(label_python):
    output = run(label_python, "-c", FOUND, env={**os.environ, "PYTHONPATH": ""})
    places, versions, draws, stand_ins = json.loads(output.splitlines()[-1])
    assert all(place.startswith(str(label_python.parents[1])) for place in places.values())
    assert "pydicom_seg" in places
    assert (draws, stand_ins) == (False, [])
    assert versions == {name: pins()[name.replace("_", "-")] for name in ("pydicom", "pydicom_seg", "torch")}


def test_label_server_environment_is_pinned(label_python):
    installed = json.loads(run(label_python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    there = {entry["name"].lower().replace("_", "-"): entry["version"].split("+")[0] for entry in installed}
    wanted = {name.lower().replace("_", "-"): version for name, version in pins().items()}
    assert wanted["pydicom"].startswith("2.")
    assert {name for name in there if name not in wanted} <= {"monai-mil-ext", "pip", "torchvision", "wheel"}
    assert {name: there[name] for name in there if there[name] != wanted.get(name, there[name])} == {}


def test_label_server_names_torchvision_for_an_app_that_needs_it(label_python, tmp_path):
    shutil.copytree(label_python.parents[1] / "monailabel" / "sample-apps" / "monaibundle", tmp_path / "monaibundle")
    (tmp_path / "studies").mkdir()
    command = ["scripts/label_server", "--app", tmp_path / "monaibundle", "--studies", tmp_path / "studies"]
    broken = tmp_path / "broken" / "torchvision.py"
    broken.parent.mkdir()
    broken.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": broken.parent}
    )
    reason = "RuntimeError: operator torchvision::nms does not exist"
    where = os.environ.get("VENV_LABEL", PYTHON.parents[1].name)
    message = f"{command[2]} needs a torchvision that fits the torch in {where}: {reason}"
    assert (done.returncode, done.stderr.splitlines()) == (1, [message])
