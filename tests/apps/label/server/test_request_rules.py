"""Tests of the rules for requests."""

import pytest

from monai_mil_ext.apps.label.server import RequestRules

NAMES = {"models": ["scan_mil"], "trainers": ["scan_mil"], "scoring": [], "strategies": ["most_uncertain_first"]}
SESSION = "271380e0-ec8e-11f1-a313-02fc00000001"


def status(path, method="GET", origins=(), query="", **headers):
    rules = RequestRules(lambda: NAMES, origins)
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    refusal = rules.refusal({"path": path, "method": method, "headers": lines, "query_string": query.encode()})
    return refusal and refusal.status


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "192.168.0.7"])
def test_request_rules_pass_the_server_itself(host):
    assert status("/info/", host=host) is None
    assert status("/info/", host=host, origin=f"http://{host}") is None


def test_request_rules_refuse_pages_of_others_and_names_that_point_here():
    assert status("/datastore/", "OPTIONS", host="127.0.0.1:8000", origin="http://evil.example") == 403
    assert status("/datastore/", "PUT", host="127.0.0.1:8000", origin="null") == 403
    assert status("/info/", host="evil.example", origin="http://evil.example") == 403
    assert status("/info/", host="127.0.0.1:8000", origin="http://127.0.0.1:9000") == 403


@pytest.mark.parametrize(
    "headers",
    [{"host": "[::1"}, {"host": "127.0.0.1", "origin": "http://[::1"}, {"content_length": "9" * 5000}],
    ids=lambda headers: [*headers][-1],
)
def test_request_rules_refuse_headers_that_are_no_addresses_or_numbers(headers):
    assert status("/info/", **headers) == 400


def test_request_rules_pass_addresses_that_the_owner_names():
    options = {"origins": ["https://mil.example.org/"], "host": "mil.example.org"}
    assert status("/info/", origin="https://mil.example.org", **options) is None
    assert status("/info/", origin="https://viewer.example.org", **options) == 403


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/infer/scan_mil", None),
        ("POST", "/infer/nobody", 404),
        ("POST", "/infer/wsi_v2/nobody", 404),
        ("POST", "/batch/infer/nobody", 404),
        ("POST", "/train/nobody", 404),
        ("POST", "/train/", None),
        ("POST", "/scoring/uncertainty", 404),
        ("POST", "/activelearning/most_uncertain_first", None),
        ("POST", "/activelearning/first", 404),
        ("GET", "/ohif/../../x", 400),
        ("GET", "/proxy/dicom/a/../../tools/execute-script", 400),
        ("GET", "/proxy/dicom/studies", 404),
        ("POST", "/reload", 403),
        ("GET", "/logs/", 403),
        ("PUT", "/model/scan_mil", 403),
        ("DELETE", "/model/scan_mil", 403),
        ("GET", "/model/scan_mil", None),
        ("GET", f"/session/{SESSION}", None),
        ("DELETE", "/session/x", 404),
    ],
)
def test_request_rules_know_the_names_in_paths(method, path, expected):
    assert status(path, method) == expected


def test_request_rules_take_sessions_and_sizes_of_their_kind():
    assert status("/infer/scan_mil", "POST", query="session_id=../x") == 404
    assert status("/infer/scan_mil", "POST", query=f"session_id={SESSION}") is None
    json, form = {"content_type": "application/json"}, {"content_type": "multipart/form-data; boundary=x"}
    assert status("/train/scan_mil", "POST", content_length=str(2**20), **json) is None
    assert status("/train/scan_mil", "POST", content_length=str(2**20 + 1), **json) == 413
    assert status("/infer/scan_mil", "POST", content_length=str(2**30), **form) is None
    assert status("/infer/scan_mil", "POST", content_length=str(2**33 + 1), **form) == 413
