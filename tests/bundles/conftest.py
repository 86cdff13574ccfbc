"""Fixtures that run the bundle scan_mil in this process on demo data."""

from pathlib import Path

import pytest
from experiments.workflows import use_scripts

from tests.workflows import configs_of, open_workflow

BUNDLE = Path(__file__).parents[2] / "bundles" / "scan_mil"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Begin each test with the bundle's ``scripts``, since one before it may have used those of another."""
    use_scripts(BUNDLE)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A small cohort of digits."""
    from scripts.prepare import prepare_digits

    return prepare_digits(tmp_path_factory.mktemp("digits"), num_scans=4).parent


@pytest.fixture(scope="session")
def ct():
    """The real cohort, fetched once. Without a registry, tests are skipped."""
    from scripts.prepare import prepare_ct

    try:
        return prepare_ct(BUNDLE / "data").parent
    except RuntimeError as error:
        return pytest.skip(str(error))


@pytest.fixture
def start(monkeypatch):
    """Open a workflow of the bundle's configs."""
    monkeypatch.chdir(BUNDLE)

    def make(*configs, workflow_type=None, **override):
        return open_workflow(*configs_of(*configs), kind=workflow_type, **override)

    return make
