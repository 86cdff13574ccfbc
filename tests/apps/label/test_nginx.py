"""Tests of the configuration of nginx in the documentation, with the nginx of the distribution."""

import base64
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from monai_mil_ext.apps.label.server import RequestRules
from tests.apps.conftest import ROOT

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="the sign-in that the page of MONAI Label recommends")]
HOST = "mil.example.org"
MAIN = """
daemon off; pid {0}/pid; error_log {0}/error.log; events {{}}
http {{
    access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi; include {0}/site.conf;
}}
"""


class Backend(BaseHTTPRequestHandler):
    """MONAI Label's place: it notes the headers that reach it."""

    seen = []

    def do_GET(self):
        Backend.seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args):
        """Stay quiet."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """The program, from the distribution's archive if it is not installed."""
    if found := shutil.which("nginx"):
        return found
    folder = tmp_path_factory.mktemp("nginx")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    apt = ["apt-get", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    for command in ([*apt, "update"], [*apt, "download", "nginx"], ["sh", "-c", "dpkg -x nginx_*.deb ."]):
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"nginx can't be fetched: {error}")
    return str(folder / "usr" / "sbin" / "nginx")


@pytest.fixture
def port(nginx, tmp_path):
    """Port of nginx before a server, with one user."""
    server, port = HTTPServer(("127.0.0.1", 0), Backend), free_port()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    subject = ["-subj", f"/CN={HOST}", "-keyout", tmp_path / "mil.key", "-out", tmp_path / "mil.crt"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], check=True, capture_output=True
    )
    secret = subprocess.run(["openssl", "passwd", "-apr1", "word"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "mil.users").write_text(f"reader:{secret}")
    tmp_path.chmod(0o755)
    site = (ROOT / "docs" / "how-to" / "monai-label-nginx.conf").read_text()
    site = site.replace("/etc/nginx", str(tmp_path)).replace("listen 443", f"listen 127.0.0.1:{port}")
    (tmp_path / "site.conf").write_text(site.replace("127.0.0.1:8000", f"127.0.0.1:{server.server_port}"))
    (tmp_path / "main.conf").write_text("user root;" * (tmp_path.stat().st_uid == 0) + MAIN.format(tmp_path))
    log = tmp_path / "error.log"
    process = subprocess.Popen([nginx, "-p", tmp_path, "-e", log, "-c", tmp_path / "main.conf"])
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    assert process.poll() is None, log.read_text()
    yield port
    process.terminate()
    process.wait(10)
    server.shutdown()


def test_nginx_asks_for_a_password_and_passes_what_the_server_accepts(port, tmp_path):
    context = ssl.create_default_context(cafile=tmp_path / "mil.crt")
    context.check_hostname = False  # the certificate is that of the public name

    def status(auth="", **headers):
        headers |= {"host": HOST, "origin": f"https://{HOST}"}
        headers |= {"authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
        connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        connection.request("GET", "/info/", headers=headers)
        return connection.getresponse().status

    assert [status(), status("reader:other")] == [401, 401]
    assert Backend.seen == []
    assert status("reader:word") == 200
    (seen,) = Backend.seen
    assert "Authorization" not in seen
    lines = [(name.lower().encode(), value.encode()) for name, value in seen.items()]
    scope = {"path": "/info/", "method": "GET", "headers": lines, "query_string": b""}
    assert RequestRules(dict, [f"https://{HOST}/"]).refusal(scope) is None
    assert RequestRules(dict).refusal(scope).status == 403
    assert status("reader:word", **{"content-length": str(9 * 2**30)}) == 413
