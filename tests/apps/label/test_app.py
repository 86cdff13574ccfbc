"""Tests of the MONAI Label app, without MONAI Label."""

import tempfile
from types import SimpleNamespace

import pytest

from monai_mil_ext.apps.label import BundleRunner, LabelApp
from tests.bundles.wsi import BUNDLES

from .server_parts import Datastore, without_init


@pytest.fixture
def app(tmp_path):
    """The app with a model, and studies of the image `a`."""
    store = Datastore(tmp_path)
    return without_init(
        LabelApp,
        studies=str(tmp_path),
        _infers={"scan_mil": SimpleNamespace(is_valid=lambda: True)},
        datastore=lambda: store,
        sessions=lambda: None,
    )


@pytest.mark.parametrize(
    ("request_options", "status", "match"),
    [
        ({"model": "other", "image": "a"}, 404, r"`model` must be one of \['scan_mil'\], got 'other'"),
        ({"model": "scan_mil"}, 400, "`image` must be the id of an image or a file, got none"),
        ({"model": "scan_mil", "image": 3}, 400, "`image` must be the id of an image or a file, got none"),
        ({"model": "scan_mil", "image": "b"}, 404, "`image` must be one of the studies, got 'b'"),
        ({"model": "scan_mil", "image": "/etc/passwd"}, 403, "`image` must be one of the studies, got a path outside"),
    ],
)
@pytest.mark.parametrize("call", ["infer", "infer_wsi"])
def test_label_app_refuses_other_models_and_images(app, http_errors, call, request_options, status, match):
    with pytest.raises(http_errors, match=match) as error:
        getattr(app, call)(request_options)
    assert error.value.status_code == status


def test_label_app_says_why_a_model_does_not_answer(app, http_errors, monkeypatch):
    app.bundles = [SimpleNamespace(name="shown", is_demonstration=True)]
    app._infers = {"scan_mil": SimpleNamespace(is_valid=lambda: False)}
    monkeypatch.setattr(LabelApp.__mro__[2], "info", lambda self: {"models": {}}, raising=False)
    with pytest.raises(http_errors, match=r"`model` must be trained: it has no weights; label scans") as error:
        app.infer({"model": "scan_mil", "image": "a"})
    assert error.value.status_code == 409
    reasons = app.info()["untrained"]
    assert reasons["scan_mil"].startswith("it has no weights")
    assert reasons["shown"].startswith("its weights only show how it works")


def test_label_app_refuses_temporary_files_that_are_no_uploads(app, http_errors):
    with tempfile.NamedTemporaryFile(prefix="report_") as file, pytest.raises(http_errors, match="a path outside"):
        app.infer({"model": "scan_mil", "image": file.name})


def test_label_app_trains_bundles_of_scans_only(app, monkeypatch):
    app.bundles = [BundleRunner(BUNDLES / name) for name in ("scan_mil", "wsi_mil")]
    monkeypatch.setattr("monai_mil_ext.apps.label.app.ScanTrainTask", lambda bundle: f"train {bundle.name}")
    assert app.init_trainers() == {"scan_mil": "train scan_mil"}
