"""An archive and validators of the distribution, fetched once."""

import pytest

from tests.debian_packages import unpack_packages
from tests.programs.orthanc import PACKAGES

VALIDATORS = ["dicom3tools", "dcmtk"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Return the folder of the programs, and the environment in which they run."""
    folder = tmp_path_factory.mktemp("programs")
    return folder, unpack_packages(folder, *VALIDATORS, *PACKAGES)
