"""Server of moto, a stand-in for S3, of which a process of the tests starts one."""

import logging
import os
from contextlib import contextmanager

import pytest
import requests

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/EXAMPLEKEY"


class Store:
    """Running server: ``root`` is the address of its bucket."""

    root = "s3://bucket"

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def post(self, path, content=b""):
        """Send a request to the server itself."""
        requests.post(f"{self.endpoint}/moto-api/{path}", content, timeout=20).raise_for_status()

    def put(self, bucket):
        """Make a bucket."""
        requests.put(f"{self.endpoint}/{bucket}", timeout=20).raise_for_status()

    @contextmanager
    def checked_permissions(self):
        """Refuse all requests: nobody has a permission."""
        self.post("reset-auth", b"0")
        try:
            yield
        finally:
            self.post("reset-auth", b"1000000000")

    def variables(self):
        """Return the environment of a process that uses the server."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextmanager
def serve_objects():
    """Run a server in a thread."""
    pytest.importorskip("s3fs", reason="the extra `remote` is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    logging.getLogger("werkzeug").setLevel("ERROR")
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Store(f"http://{host}:{port}")
    finally:
        server.stop()
