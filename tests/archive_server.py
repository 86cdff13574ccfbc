"""A web server that answers as archives do to what is sent to them."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

STORED = {"00081199": {"vr": "SQ", "Value": [{}]}}


class Archive(HTTPServer):
    """Web server that answers each request by the next of ``answers``: status and JSON."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.seen = list(answers), []
        self.url = f"http://127.0.0.1:{self.server_port}/dicom-web"


class Handler(BaseHTTPRequestHandler):
    """Handler of ``Archive``."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, dict(self.headers), body))
        status, answer = self.server.answers.pop(0)
        text = json.dumps(answer).encode() if answer is not None else b"<html>"
        self.send_response(status)
        self.send_header("retry-after", "3600")
        self.send_header("location", "http://127.0.0.1:1/")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        """Stay quiet."""


@contextmanager
def serve_answers(*answers):
    """Run an ``Archive``."""
    with Archive(answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
