"""Fixtures of the app's tests without MONAI Label."""

import pytest

from monai_mil_ext.apps.label import errors

from .server_parts import HTTPError


@pytest.fixture
def http_errors(monkeypatch):
    """Raise a stand-in for FastAPI's error, which is not installed here."""
    monkeypatch.setattr(errors, "HTTPException", HTTPError)
    return HTTPError
