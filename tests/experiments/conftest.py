"""Fixtures of tests of experiments: the bundle's ``scripts``, and scans of digits."""

from pathlib import Path

import pytest
from experiments.workflows import use_scripts

from tests.workflows import configs_of, open_workflow

SCRIPTS = Path(__file__).parents[2] / "scripts"
BUNDLE = SCRIPTS.parent / "bundles" / "scan_mil"
OVERLAYS = SCRIPTS / "experiments" / "ct_protocol" / "configs"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Begin each test with the bundle's ``scripts``, since one before it may have used those of another."""
    use_scripts(BUNDLE)


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
