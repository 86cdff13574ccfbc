"""Working folder of the examples in docstrings and pages, which pytest runs as doctests."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent


@pytest.fixture(autouse=True)
def _example_folder(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each example in a new temporary folder, so that it may write files by plain names.

    The folder links to the repository's bundles, since pages read their configs. The module search path, which a page
    may extend, and the log level are restored afterwards.
    """
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    folder = request.getfixturevalue("tmp_path")
    (folder / "bundles").symlink_to(ROOT / "bundles")
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    logging.disable(logging.NOTSET)
