"""Headless Chromium that opens a page from disk, runs steps in it in real time, and returns what they found."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

__all__ = ["run_steps"]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SCRIPT = """<script>
const found = {}, wait = ms => new Promise(done => setTimeout(done, ms));
const send = () => { new Image().src = "http://127.0.0.1:%d/?found=" + encodeURIComponent(JSON.stringify(found)); };
(async () => { try { %s } catch (error) { found.error = String(error); } send(); })();
</script></body>"""


def run_steps(path, steps, folder, seconds=60):
    """Open the page at ``path``, run the script ``steps``, which fills ``found``, and return ``found``."""
    answers, arrived = [], threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_GET(self):
            answers.extend(parse_qs(urlsplit(self.path).query).get("found", []))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        copy = path.with_name("steps.html")
        copy.write_text(path.read_text().replace("</body>", SCRIPT % (server.server_port, steps)))
        flags = [*FLAGS, "--window-size=1200,900", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        with subprocess.Popen(["chromium", *flags, copy.as_uri()], stderr=subprocess.DEVNULL) as process:
            try:
                assert arrived.wait(seconds), "the page must answer in time"
            finally:
                process.terminate()
                server.shutdown()
    return json.loads(answers[0])
