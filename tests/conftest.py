"""Settings shared by all tests."""

import gc
import logging
import os
import shutil

import pytest
import torch
from fsspec import core
from hypothesis import settings

from tests.helpers import DEVICE
from tests.object_store import serve_objects
from tests.seconds import seconds_by_folder

settings.register_profile("fast", max_examples=10, deadline=None)
settings.register_profile("nightly", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# markers of tests that need what is no dependency: their skips are the only ones that CI allows
NEEDED = {
    "gpu": (lambda: DEVICE == "cpu" or torch.cuda.is_available(), "a CUDA device"),
    "browser": (lambda: shutil.which("chromium"), "Chromium"),
}


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


def pytest_collection(session):
    """Collect no garbage while modules are imported: nothing of them becomes garbage."""
    gc.disable()


def pytest_collection_finish(session):
    """Collect garbage of the tests only: imported modules are a million objects, which take half a second each time."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Run files with slow tests first, so that no process is left alone with one at the end.

    Tests of a GPU and of a browser are skipped on machines without one.
    """
    slow = {item.path for item in items if "slow" in item.keywords}
    silent = [item.nodeid for item in items for mark in item.iter_markers("slow") if not mark.kwargs.get("buys")]
    if silent:
        raise pytest.UsageError(f"`slow` needs the argument `buys`, which says what a test is for: {silent}")
    items.sort(key=lambda item: item.path not in slow)
    for marker, (is_there, name) in NEEDED.items():
        lacking = [] if is_there() else [item for item in items if marker in item.keywords]
        for item in lacking:
            item.add_marker(pytest.mark.skip(reason=f"needs {name}"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the files of one MONAI Label server to one process, or each of two starts a server."""
    from xdist.scheduler import LoadFileScheduling

    class FilesByServer(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "the server" if file.endswith("_over_http.py") else file

    return FilesByServer(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that CI would skip, unless it needs a GPU or a browser, and note what a slow test is for."""
    report = yield
    slow = item.get_closest_marker("slow")
    report.user_properties = [*report.user_properties, ("buys", slow.kwargs.get("buys", "") if slow else "")]
    is_allowed = hasattr(report, "wasxfail") or any(marker in item.keywords for marker in NEEDED)
    if report.skipped and os.environ.get("CI") and not is_allowed:
        report.outcome, report.longrepr = "failed", f"A skip is not a pass in CI: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Print what the ten slowest tests are for, and the seconds of each folder, if slow tests ran."""
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    reports = sorted(reports, key=lambda report: -report.duration)[:10]
    if any("slow" in report.keywords for report in reports):
        terminalreporter.section("ten slowest tests, and what they buy")
        for report in reports:
            buys = dict(report.user_properties).get("buys") or "not marked slow"
            terminalreporter.line(f"{report.duration:5.0f} s  {report.nodeid}: {buys}")
        everything = [report for group in terminalreporter.stats.values() for report in group]
        terminalreporter.section("seconds of each folder, with fixtures; of slow tests; number of tests")
        for folder, (seconds, slow, count) in seconds_by_folder(everything).items():
            terminalreporter.line(f"{seconds:6.0f} s  {slow:6.0f} s  {count:5}  {folder}")


@pytest.fixture(scope="session")
def _s3_server():
    with serve_objects() as store:
        yield store


@pytest.fixture
def s3(_s3_server, tmp_path, monkeypatch):
    """Return an empty bucket of a stand-in for S3, with credentials in the environment and an empty cache."""
    _s3_server.post("reset")
    _s3_server.put("bucket")
    for name, value in {**_s3_server.variables(), "MONAI_MIL_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Return the address of an empty store in memory, with an empty cache."""
    monkeypatch.setenv("MONAI_MIL_CACHE", str(tmp_path / "cache"))
    core.url_to_fs("memory://")[0].store.clear()
    return "memory://bucket"
