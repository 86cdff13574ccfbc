"""Hostile and mistaken requests to MONAI Label with the app, in a process of the server's environment."""

import base64
import gzip
import io
import json
import tarfile

import nibabel as nib
import numpy as np
import pytest

from tests.apps.conftest import ROOT, run

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow(buys="no client can write outside of the studies or stall the server"),
]
MODEL, TRAIN = "/infer/scan_mil", "/train/scan_mil?run_sync=true"
JSON = {"content-type": "application/json"}


def ask(method, path, expected, reason="", **options):
    return {"method": method, "path": path, "expected": expected, "reason": reason, **options}


def put(path, expected, reason="", name="x.nii.gz", field="file", content=b"x"):
    files = {field: [name, base64.b64encode(content).decode()]}
    return ask("PUT", path, expected, reason, files=files)


def info(text, expected, reason, image="a"):
    return ask("PUT", f"/datastore/image/info?image={image}", expected, reason, data={"info": text})


def next_sample(reason):
    return ask("POST", "/activelearning/most_uncertain_first", 200, reason, json={})


def reader(action, expected, reason, headers=None, **values):
    values = {"reader": "Ann", "image": "c", **values}
    return ask("POST", f"/labeller/{action}", expected, reason, json=values, headers=headers or {})


def mask(value):
    voxels = np.full((2, 2, 2), value, np.uint8)
    return gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes())


def tar_outside():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../mil/evil.py")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    return file.getvalue()


def params(values, expected, reason):
    return ask("POST", f"{MODEL}?image=a&output=json", expected, reason, data={"params": json.dumps(values)})


ODD_NAMES = ["%2e%2e%2fx", "..%5cx", "/etc/x", "C:x", ".hidden", "%20x", "a%00b", "a%0d%0ab", "a" * 250]
ODD_NAMES += ["a%ef%bc%8fx", "a%e2%88%95x", "%e2%80%ae", "%ff%fe"]  # like separators, and no text
DEEP = ["[" * 200_000, '{"a":' * 50_000]
ODD_FILES = ["evil.py", "../../mil/x.py", "x.nii.gz/../../e.py", "x.nii.gz\0.py", ".htaccess"]
ODD_HOSTS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"]
ODD_PARAMS = [
    ({"image": "/etc/passwd"}, 403, "a path outside of them"),
    ({"image": ["a"]}, 400, "the id of an image"),
    ({"model": "../x"}, 404, "`model` must be one of"),
    ({"model": ["x"]}, 404, "`model` must be one of"),
    ({"label_tag": "../x", "save_label": True}, 400, "`label_tag` must be a plain name"),
]
NAME, OBJECTS = "must be a plain name without separators", "must be JSON objects"
UPLOAD = {"file": ["x.nii.gz", base64.b64encode(b"x").decode()]}
REQUESTS = [
    # what would replace, remove or read files
    put("/datastore/?image=../mil/main", 400, NAME, "evil.py"),
    put("/datastore/image?image=../x", 400, NAME),
    *(put(f"/datastore/image?image={name}", 400, NAME) for name in ODD_NAMES),
    *(put("/datastore/image?image=new", 400, "one of the endings", name) for name in ODD_FILES),
    put("/datastore/image?image=a", 409, "must be a new ID"),
    put("/datastore/label?image=a&tag=../../../x", 400, "`tag` must be a plain name", "l.json", "label", b"{}"),
    put("/datastore/label?image=../a&tag=final", 400, NAME, "l.json", "label", b"{}"),
    put("/datastore/label?image=a&tag=final", 400, "one of the endings", "l.py", "label"),
    put(
        "/datastore/label?image=a&tag=final", 400, "`bag_label` must be a class", "l.json", "label", b'{"bag_label": 7}'
    ),
    ask("DELETE", "/datastore/image?id=../mil/main", 400, NAME),
    ask("DELETE", "/datastore/label?id=../a&tag=../final", 400, NAME),
    ask("DELETE", "/datastore/label?id=zz&tag=final", 404, "one of the studies"),
    ask("GET", "/datastore/label?label=a&tag=../../x", 404),
    ask("GET", "/datastore/image?image=../../etc/passwd", 404),
    ask("POST", f"{MODEL}?image=/etc/passwd", 403, "a path outside of them"),
    *(ask("POST", f"{MODEL}?image={name}", 404, "one of the studies") for name in ("..%2fx", "file:///etc/passwd")),
    ask("POST", f"{MODEL}?image=http://127.0.0.1:1/x", 404, "one of the studies"),
    *(params(values, status, reason) for values, status, reason in ODD_PARAMS),
    ask(
        "POST", f"{MODEL}?image=a", 400, "must not be final", data={"params": '{"save_label":true,"label_tag":"final"}'}
    ),
    put("/session/?uncompress=true", 400, "a link or a path outside", "x.tar.gz", "files", tar_outside()),
    put("/session/?uncompress=true", 400, "a readable zip or tar archive", "x.zip", "files"),
    ask("GET", "/session/%2e%2e", 400, "no '..'"),
    ask("GET", "/ohif/%2e%2e", 400, "no '..'"),
    ask("GET", "/ohif/..%2f..%2fmain.py", 400, "no '..'"),
    ask("GET", "/model/%2e%2e%2f%2e%2e%2fetc", 400, "no '..'"),
    ask("GET", "/model/nobody", 404, "nobody"),
    ask("GET", "//etc/passwd", 404),
    ask("GET", "/proxy/dicom/%2e%2e/tools", 400, "no '..'"),
    ask("POST", f"{MODEL}?session_id=../../x", 404, "one that the server has given"),
    put("/model/scan_mil", 403, "replaced by training", "m.pt"),
    ask("DELETE", "/model/scan_mil", 403, "replaced by training"),
    ask("POST", "/reload", 403),
    ask("GET", "/logs/", 403),
    # pages of others
    ask("GET", "/info/", 403, "one of the server", headers={"origin": "http://evil.example"}),
    ask(
        "OPTIONS", "/datastore/", 403, headers={"origin": "http://evil.example", "access-control-request-method": "PUT"}
    ),
    ask("GET", "/info/", 403, "one of the server", headers={"origin": "http://127.0.0.1.evil.example"}),
    *(ask("GET", "/info/", 403, "that of the server", headers={"host": host}) for host in ODD_HOSTS),
    ask("GET", "/info/", 400, "must be readable", headers={"host": "[::1"}),
    ask("GET", "/info/", 400, "must be readable", headers={"origin": "http://[::1"}),
    ask("TRACE", "/info/", 405),
    # mistakes
    info('{"bag_label": 1}', 404, "one of the studies", "nobody"),
    *(info(text, 400, OBJECTS) for text in ("{bad", '"x"', "1", "null", "[" * 5000)),
    *(info(f'{{"bag_label": {label}}}', 400, "`bag_label` must be a class") for label in ("NaN", "true", "[1]", "-1")),
    info('{"bag_label": "Tumour"}', 400, "`bag_label` must be a class of ['no tumor', 'tumor'], got 'Tumour'"),
    info('{"x": ' + "[" * 300 + "]" * 300 + "}", 400, "`info` must be readable again"),
    info('{"x": "\\ud800"}', 400, "`info` must be readable again"),
    *(info(f'{{"x": {number}}}', 400, "`info` must be readable again") for number in ("NaN", "-Infinity", "1e999")),
    info('{"bag_label": 1, "bag_label": 99}', 400, "`bag_label` must be a class"),
    info(json.dumps({"x": "y" * 70_000}), 413, "at most 65536 characters"),
    ask("PUT", "/datastore/label/info?label=zz&tag=final", 404, "not found", data={"info": "{}"}),
    ask("GET", "/datastore/dataset", 404, "nothing to include"),
    *(ask("POST", f"{MODEL}?image=a", 400, OBJECTS, data={"params": text}) for text in ("{bad", '"x"', "1", "null")),
    ask("POST", "/infer/wsi_v2/scan_mil?image=a", 400, OBJECTS, data={"wsi": "1"}),
    ask("POST", MODEL, 400, "Neither Image nor File"),
    ask("POST", f"{MODEL}?image={'a' * 3000}", 404, "one of the studies"),
    ask("POST", f"{MODEL}?image=a&output=dicom_seg", 400, "not supported in a non-DICOM"),
    ask("POST", "/infer/nobody?image=a", 404, "`model` must be one of ['scan_mil']"),
    *(ask("POST", f"/{kind}/nobody", 404, "must be one of", json={}) for kind in ("train", "batch/infer")),
    ask("POST", "/scoring/nobody", 404, "`method` must be one of ['slices', 'uncertainty']", json={}),
    ask("POST", "/activelearning/nobody", 404, "`strategy` must be one of", json={}),
    *(
        ask("POST", f"{path}?run_sync=true", 404, "`model` must be one of", json={"model": model})
        for path in ("/scoring/uncertainty", "/batch/infer/scan_mil", "/train/scan_mil")
        for model in ("../x", ["x"], 1)
    ),
    ask("POST", "/batch/infer/scan_mil?run_sync=true", 400, "must not be final", json={"label_tag": "final"}),
    ask("POST", "/batch/infer/scan_mil?images=..%2fx", 422, json={}),
    ask("POST", "/train/scan_mil", 422, json=[1]),
    *(ask("POST", "/train/scan_mil", 400, "parsing the body", content=text, headers=JSON) for text in DEEP),
    ask("POST", TRAIN, 400, "`max_epochs` must be", content='{"max_epochs": 1e999}', headers=JSON),
    ask("POST", "/train/scan_mil", 413, "at most 1048576 bytes", content="x" * 2**21, headers=JSON),
    ask("GET", "/train/", 404, "No Train Tasks"),
    *(
        ask("POST", f"/infer/{kind}?image=a", 400, OBJECTS, data={"params": "{bad", "wsi": "{bad"}, files=UPLOAD)
        for kind in ("scan_mil", "wsi_v2/scan_mil")
    ),
    # what goes on working
    ask("POST", f"{MODEL}?output=json", 200, '"uncertainty":0.5', files=UPLOAD),
    info('{"bag_label": "tumor"}', 200, ""),
    put("/datastore/label?image=b&tag=final", 200, "", "l.json", "label", b'{"bag_label": 0}'),
    ask("POST", f"{MODEL}?image=c&output=json", 200, '"uncertainty":0.5'),
    ask("GET", "/info/", 200, '"completed":2'),
    # labels from where the reader sits
    next_sample("no image has a score: POST /scoring/uncertainty"),
    put("/datastore/label?image=c&tag=final", 400, "`label` must be a readable mask", "m.nii.gz", "label"),
    put("/datastore/label?image=c&tag=final", 200, "", "m.nii.gz", "label", mask(1)),
    ask("GET", "/datastore/image/info?image=c", 200, '"bag_label":1,"bag_label_from":"mask"'),
    put("/datastore/label?image=c&tag=final", 200, "", "m.nii.gz", "label", mask(0)),
    ask("GET", "/datastore/image/info?image=c", 200, '"bag_label":0'),
    next_sample("all images have a label"),
    ask("DELETE", "/datastore/label?id=c&tag=final", 200),
    ask("GET", "/datastore/image/info?image=c", 200, '"bag_label":null,"bag_label_from":null'),
    ask("GET", "/info/", 200, '"untrained":{}'),
    ask("GET", "/labeller", 200, "<h1>Label scans</h1>"),
    ask("GET", "/labeller/labeller.js", 200, "use strict"),
    ask("GET", "/labeller/cases", 200, '"can_train": true'),
    ask("GET", "/labeller/%2e%2e/app.py", 400, "no '..'"),
    reader("label", 200, "tumor", label="tumor"),
    reader("label", 400, "`label` must be one of ['no tumor', 'tumor'], got 'x'", label="x"),
    *(
        reader(action, 404, "`image` must be one of the studies", image=image, label="tumor")
        for action in ("open", "answer", "label", "send")
        for image in ("../a", ["a"], None)
    ),
    reader("label", 400, "`reader` must be a name", reader="a\0b", label="tumor"),
    ask("GET", "/labeller/picture?image=..%2fa&slice=0", 404, "must be an opened one"),
    reader("label", 403, "one of the server", label="tumor", headers={"origin": "http://evil.example"}),
    ask("POST", "/labeller/label", 400, "must be a JSON object", content="{bad"),
    reader("open", 400, "must be a readable, undamaged scan"),
    reader("answer", 200, "0.5"),
    reader("send", 400, "must lie in a DICOMweb archive"),
    ask("GET", "/labeller/log", 200, '"event": "answer"'),
]
BESIDE = ask("GET", "/info/", 200, sleep=1.5, parallel=2, beside=ask("POST", f"{MODEL}?image=a&output=json", 200))


@pytest.fixture(scope="module")
def answers(label_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    program = ROOT / "tests/apps/label/server/app_requests.py"
    output = run(label_python, program, folder, input=json.dumps([*REQUESTS, BESIDE])).splitlines()
    return folder, json.loads(next(line for line in output if line.startswith("[["))), json.loads(output[-1])


@pytest.mark.parametrize(
    "number", range(len(REQUESTS)), ids=lambda n: f"{REQUESTS[n]['method']} {REQUESTS[n]['path'][:60]}"
)
def test_safe_app_answers_with_a_status_and_a_reason(answers, number):
    request, (status, text, headers, _) = REQUESTS[number], answers[1][number]
    assert status == request["expected"], text
    assert request["reason"] in text.replace('\\"', '"')
    assert "Traceback" not in text
    assert status < 400 or str(answers[0]) not in text
    assert headers.get("access-control-allow-origin") is None


def test_safe_app_keeps_the_page_of_readers_to_itself(answers):
    pages = [answers[1][k] for k, request in enumerate(REQUESTS) if request["path"].startswith("/labeller")]
    policies = {headers.get("content-security-policy") for status, _, headers, _ in pages if status == 200}
    assert {policy.split(";")[0] for policy in policies} == {"default-src 'none'"}


def test_safe_app_leaves_code_and_weights_as_they_were(answers):
    app = answers[0] / "mil"
    assert (app / "main.py").read_text() == (ROOT / "monai_mil_ext/apps/label/mil/main.py").read_text()
    assert (app / "model/scan_mil/models/model.pt").read_bytes() == b"weights"
    assert {path.name for path in answers[0].iterdir()} <= {"mil", "studies", "sessions", "tmp"}
    assert not list(answers[0].rglob("evil*"))


def test_safe_app_keeps_no_file_of_a_request(answers):
    left, modes = answers[2]
    assert [name for name in left if "server-" not in name or name.count("/") > 2] == []
    assert modes == ["700", "700"]
    assert list((answers[0] / "mil" / "monai_mil_temporary").glob("server-*")) == []  # the server has ended


def test_safe_app_answers_within_a_second_while_models_run(answers):
    beside = answers[1][len(REQUESTS) :]
    assert [answer[0] for answer in beside] == [200] * 3
    assert min(answer[3] for answer in beside) < 1
    assert max(answer[3] for answer in beside) > 1.4
