"""Orthanc of the distribution, with its plugin for DICOMweb."""

import json
import socket
import subprocess
from contextlib import contextmanager

PACKAGES = ["orthanc", "orthanc-dicomweb", "libdcmtk17", "libcivetweb1", "liblua5.3-0", "libpugixml1v5", "libwrap0"]
PACKAGES += ["libboost-thread1.74.0", "libboost-locale1.74.0"]


@contextmanager
def serve_orthanc(programs, folder):
    """Run an archive that keeps its data in ``folder``, and give its address.

    Args:
        programs: folder of the unpacked programs, and the environment in which they run.
        folder: empty folder.
    """
    place, environment = programs
    (plugin,) = place.glob("usr/lib/orthanc/libOrthancDicomWeb.so.*")
    settings = {"HttpPort": free_port(), "RemoteAccessAllowed": False, "DicomServerEnabled": False}
    settings |= {"Plugins": [str(plugin)], "StorageDirectory": str(folder / "DB"), "IndexDirectory": str(folder / "DB")}
    settings |= {"HttpBindAddresses": ["127.0.0.1"], "AuthenticationEnabled": False}
    settings |= {"DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"}}
    (folder / "orthanc.json").write_text(json.dumps(settings))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(["Orthanc", folder / "orthanc.json"], env=environment, **quiet)
    try:
        yield f"http://127.0.0.1:{settings['HttpPort']}/dicom-web"
    finally:
        process.terminate()
        process.wait(20)


def free_port():
    """Return a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
