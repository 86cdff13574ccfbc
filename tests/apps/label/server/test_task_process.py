"""Tests of processes that end with their parent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.apps.conftest import ROOT

PROGRAM = str(ROOT / "monai_mil_ext" / "apps" / "label" / "server" / "task_process.py")
CHILD = f"""
import runpy, time
runpy.run_path({PROGRAM!r})["exit_with_parent"](seconds=0.1)
print("on", flush=True)
time.sleep(60)
"""  # without the imports of the package
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid, flush=True)
time.sleep(60)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow(buys="no training goes on after kill -9 of the server")
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_exit_with_parent_leaves_no_orphan_after_kill_9():
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "on\n"
        assert is_running(child)
        parent.kill()
    end = time.monotonic() + 10
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(child)


@pytest.mark.slow(buys="no training begins after the end of the server")
def test_exit_with_parent_ends_where_the_parent_ended_before():
    code = CHILD.replace("seconds=0.1", f"{os.getpid() + 10**6}")
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 1
