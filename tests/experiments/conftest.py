"""Fixtures of tests of experiments: the import path of the commands, and scans of digits."""

import sys
from pathlib import Path

import pytest

from tests.workflows import configs_of, open_workflow

SCRIPTS = Path(__file__).parents[2] / "scripts"
BUNDLE = SCRIPTS.parent / "bundles" / "scan_mil"
OVERLAYS = SCRIPTS / "experiments" / "ct_protocol" / "configs"


@pytest.fixture(scope="session", autouse=True)
def _on_the_path():
    """Make experiments, and the ``scripts`` of the bundle that they run, importable."""
    folders = [str(BUNDLE), str(SCRIPTS)]
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)


@pytest.fixture(scope="module", autouse=True)
def _scripts_of_the_bundle(_on_the_path):
    """Begin each file with the ``scripts`` of the bundle, since an experiment may have used those of another."""
    from experiments.workflows import use_scripts

    before = list(sys.path)
    use_scripts(BUNDLE)
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Write sixty scans, half of them with a lesion."""
    from scripts.digit_scans import prepare_digit_scans

    return prepare_digit_scans(tmp_path_factory.mktemp("scans")).parent


@pytest.fixture
def start(monkeypatch):
    """Open a workflow of the bundle's configs and of the overlays of the protocol."""
    monkeypatch.chdir(BUNDLE)

    def make(*names, workflow_type="train", **overrides):
        files = [OVERLAYS / f"{name}.yaml" for name in names]
        files = [file if file.exists() else config for file, config in zip(files, configs_of(*names), strict=True)]
        return open_workflow(*files, kind=workflow_type, **overrides)

    return make
