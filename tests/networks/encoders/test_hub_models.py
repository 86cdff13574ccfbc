"""Tests of errors of the hub, without a network."""

import socket
import sys
import types
import urllib.error

import pytest

from monai_mil_ext.networks.encoders import timm_encoder, transformers_encoder
from monai_mil_ext.networks.encoders.hub_models import explain_hub_errors, is_local_only
from monai_mil_ext.utils.exceptions import root_cause

hub = pytest.importorskip("huggingface_hub")
NAME = "facebook/dinov2-base"
AWAY = "`model` must be on this machine if the hub can't be reached, got 'facebook/dinov2-base'.* give its folder"


def response(kind, status):
    """An error of the hub with the status of its answer."""
    answer = types.SimpleNamespace(status_code=status, headers={}, request=None)
    error = kind.__new__(kind)
    error.response = answer
    return error


def answers(monkeypatch, error=None, cached=None):
    """Let the hub raise an error, and its cache have a file or not."""
    calls = []

    def metadata(url, timeout):
        calls.append((url, timeout))
        if error is not None:
            raise error

    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda **file: cached)
    return calls


def connect_error():
    """An error as a client of the web raises it, which is no OSError."""
    kind = type("ConnectError", (Exception,), {"__module__": "httpx2"})
    error = kind("[Errno -2] Name or service not known")
    error.__cause__ = socket.gaierror(-2, "Name or service not known")
    return error


UNREACHABLE = [
    connect_error(),
    ConnectionRefusedError(111, "refused"),
    TimeoutError(),
    hub.errors.OfflineModeIsEnabled("offline mode is enabled"),
    hub.errors.LocalEntryNotFoundError("not on the disk"),
    response(hub.errors.HfHubHTTPError, 503),
]


@pytest.mark.parametrize("error", UNREACHABLE, ids=lambda error: type(error).__name__)
def test_a_hub_that_does_not_answer_is_said_to_be_that(monkeypatch, error):
    calls = answers(monkeypatch, error)
    with pytest.raises(OSError, match=AWAY) as caught:
        transformers_encoder(NAME)
    assert root_cause(caught.value) is caught.value
    assert len(calls) == 1
    assert calls[0][1] <= 10
    answers(monkeypatch, error, cached="config.json")
    assert is_local_only(NAME)


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        (hub.errors.GatedRepoError, 403, "must be one that you may read, got the gated .*: ask for access at https://"),
        (hub.errors.RepositoryNotFoundError, 401, "must be a folder that exists, or a public name on the hub, got"),
        (hub.errors.RevisionNotFoundError, 404, "`revision` must be one of the model on the hub, got another for"),
    ],
)
def test_a_hub_that_refuses_a_model_is_said_to_refuse_it(monkeypatch, kind, status, message):
    answers(monkeypatch, response(kind, status), cached="config.json")
    with pytest.raises(OSError, match=message):
        transformers_encoder(NAME)


def test_a_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    calls = answers(monkeypatch)
    assert is_local_only(tmp_path)
    assert calls == []


def test_a_folder_that_does_not_exist_is_named_without_its_path(tmp_path):
    with pytest.raises(OSError, match="must be a folder that exists, or a name on the hub, got 'dinov2'") as error:
        transformers_encoder(tmp_path / "Jane" / "dinov2")
    assert "Jane" not in str(error.value)


def test_local_files_only_does_not_ask_the_hub(monkeypatch):
    calls = answers(monkeypatch)
    with pytest.raises(OSError, match="must be a folder, or in the cache of the hub for `local_files_only`"):
        transformers_encoder(NAME, local_files_only=True)
    answers(monkeypatch, cached="config.json")
    assert is_local_only(NAME, local_files_only=True)
    assert calls == []


def test_other_errors_are_left_as_they_are():
    for error in (ValueError("a"), FileNotFoundError("b"), response(hub.errors.HfHubHTTPError, 404)):
        with pytest.raises(type(error)) as caught, explain_hub_errors(NAME):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), UNREACHABLE[0]])
def test_timm_encoder_says_that_its_weights_cannot_be_downloaded(monkeypatch, error):
    timm = types.ModuleType("timm")

    def create_model(name, **options):
        raise error

    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)
    with pytest.raises(
        OSError, match=r"`model` must be on this machine .*, got 'vit_small'.* give its file as `checkpoint`"
    ):
        timm_encoder("vit_small")
