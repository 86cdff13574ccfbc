"""Small CT series and a model of them, made once."""

import pytest

from .ct_series import make_scans, train


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Small CT series and other scans."""
    return make_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="session")
def trained(scans, tmp_path_factory):
    """Folder of the weights and the record of a model of the CT series."""
    return train(scans, tmp_path_factory.mktemp("model"))
