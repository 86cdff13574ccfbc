"""An archive and validators of the distribution, fetched once."""

import pytest

from tests.debian_packages import unpack_packages

PACKAGES = ["dicom3tools", "dcmtk", "libdcmtk17", "orthanc", "orthanc-dicomweb", "libcivetweb1", "liblua5.3-0"]
PACKAGES += ["libpugixml1v5", "libwrap0", "libboost-thread1.74.0", "libboost-locale1.74.0"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Return the folder of the programs, and the environment in which they run."""
    folder = tmp_path_factory.mktemp("programs")
    return folder, unpack_packages(folder, *PACKAGES)
