"""Settings shared by all tests."""

import logging
import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("fast", max_examples=10, deadline=None)
settings.register_profile("nightly", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(autouse=True)
def _fresh():
    """Reset the random seed and logging, which some pages disable for the rest of the process."""
    torch.manual_seed(0)
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _compiled_code(tmp_path_factory):
    """Compile into an empty cache: a run that was killed leaves incomplete files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def pytest_collection_modifyitems(items):
    """Run files with slow tests first, so that no process is left alone with one at the end.

    GPU tests are skipped on machines without a GPU; these are the only skips that CI allows.
    """
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
