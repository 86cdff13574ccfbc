"""Fixtures of the tests of the server."""

import pytest

from monai_mil_ext.apps.label import errors
from tests.apps.label.server_parts import HTTPError


@pytest.fixture(autouse=True)
def _http_error(monkeypatch):
    """Raise a stand-in for FastAPI's error."""
    monkeypatch.setattr(errors, "HTTPException", HTTPError)
