"""Program for the server's interpreter: sends requests to MONAI Label with the app `mil` in this process.

Reads a JSON list of requests from standard input, and prints one of answers: status, body, headers and seconds; and
then one of the temporary files that are left. The model only sleeps, so that the requests take no time of their own.
"""

import base64
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

BASE = "http://127.0.0.1:8000"
ROOT = Path(__file__).parents[4]


def prepare(folder):
    """Make the app, with a bundle that has configs only, and three studies."""
    app, studies = folder / "mil", folder / "studies"
    shutil.copytree(ROOT / "monai_mil_ext" / "apps" / "label" / "mil", app)
    shutil.copytree(ROOT / "bundles" / "scan_mil" / "configs", app / "model" / "scan_mil" / "configs")
    (app / "model" / "scan_mil" / "models").mkdir()
    (app / "model" / "scan_mil" / "models" / "model.pt").write_bytes(b"weights")
    (app / "logs").mkdir()
    studies.mkdir()
    for name in "abc":
        (studies / f"{name}.nii.gz").write_bytes(name.encode())
    os.environ |= {"MONAI_LABEL_APP_DIR": str(app), "MONAI_LABEL_STUDIES": str(studies), "PYTHONPATH": str(ROOT)}
    os.environ["MONAI_LABEL_APP_CONF"] = json.dumps({"mask_label": "nonempty"})
    (folder / "tmp").mkdir()
    os.environ["TMPDIR"] = str(folder / "tmp")
    os.environ |= {"MONAI_LABEL_AUTO_UPDATE_SCORING": "false", "MONAI_LABEL_SESSION_PATH": str(folder / "sessions")}


def model(seconds):
    """A model that takes ``seconds`` and gives a score."""

    def infer(task, request):
        time.sleep(seconds)
        return None, {"prediction": [{"idx": 0, "label": "tumor", "score": 0.5}], "uncertainty": 0.5}

    return infer


def options(request):
    kept = {key: request[key] for key in ("json", "data", "headers", "content") if key in request}
    files = {field: (name, base64.b64decode(body)) for field, (name, body) in request.get("files", {}).items()}
    return {**kept, **({"files": files} if files else {})}


def send(client, request):
    begin = time.monotonic()
    answer = client.request(request["method"], request["path"], **options(request))
    return [answer.status_code, answer.text, dict(answer.headers), time.monotonic() - begin]


def left_in(folder):
    """Files and folders that are left of requests, and how others may use the folder of the server."""
    own = folder / "mil" / "monai_mil_temporary"
    found = sorted(str(path.relative_to(folder)) for place in (own, folder / "tmp") for path in place.rglob("*"))
    modes = [oct(path.stat().st_mode)[-3:] for path in (own, *own.glob("server-*"))]
    return [[name for name in found if not name.endswith(".lock")], modes]


def main(folder):
    prepare(Path(folder))
    from fastapi.testclient import TestClient
    from monailabel.app import app
    from monailabel.interfaces.utils.app import app_instance

    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        task = type(app_instance()._infers["scan_mil"])
        answers = []
        for request in json.load(sys.stdin):
            task.__call__ = model(request.get("sleep", 0))
            threads = []
            for _ in range(request.get("parallel", 0)):
                threads.append(threading.Thread(target=lambda r=request["beside"]: answers.append(send(client, r))))
                threads[-1].start()
            time.sleep(0.3 * bool(threads))
            answers.append(send(client, request))
            for thread in threads:
                thread.join()
        left = left_in(Path(folder))
    print(json.dumps(answers))  # noqa: T201
    print(json.dumps(left))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
