"""Tests of the check of a device: its parts on the CPU, and what happens when one fails."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def apart():
    from experiments.device.check import run_apart

    return run_apart


def test_a_part_gives_its_rows(apart):
    assert apart(lambda: [1, 2], 30) == ([1, 2], "")


def test_a_part_that_fails_or_ends_says_so(apart):
    assert apart(Path("/no/such/file").read_text, 30)[1].startswith("FileNotFoundError")
    assert "/no/such" not in apart(Path("/no/such/file").read_text, 30)[1]
    assert apart(lambda: os._exit(3), 30) == (None, "its process ended with 3")


def test_a_part_ends_at_its_limit_with_its_processes(apart, tmp_path):
    def slow():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (tmp_path / "pid").write_text(str(child.pid))
        time.sleep(60)

    begun = time.monotonic()
    assert apart(slow, 1) == (None, "ended after its limit of 1 s")
    assert time.monotonic() - begun < 30
    deadline = time.monotonic() + 10
    status = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_part_that_fails_does_not_end_the_others(monkeypatch, tmp_path):
    from experiments.device import check, parts

    def fail(sizes):
        raise RuntimeError("out of luck")

    good = parts.make_row("Times", "a / b", parts.Measurement(2.0), goal=1.0)
    monkeypatch.setattr(check, "PARTS", {"bad": parts.Part(fail, 30), "good": parts.Part(lambda sizes: [good], 30)})
    assert check.main(["--rehearse", "--out", str(tmp_path / "device.json")]) == 1
    result = json.loads((tmp_path / "device.json").read_text())
    assert result["failed"] == {"bad": "RuntimeError: out of luck"}
    assert [row["value"] for row in result["rows"]] == [2.0]
    assert "bad was not measured: RuntimeError: out of luck." in result["note"]


def test_all_parts_together_take_at_most_nine_minutes():
    from experiments.device.parts import PARTS

    assert sum(part.limit for part in PARTS.values()) + 20 <= 9 * 60  # 20 s to find the device


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a device")
def test_a_missing_device_is_told():
    from experiments.device.check import check

    with pytest.raises(SystemExit, match="A CUDA device must be visible, got none"):
        check(None, rehearse=False)


def test_pages_say_that_nothing_was_measured(monkeypatch, tmp_path):
    from experiments import tables

    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    empty = "<!-- results:device -->\n<!-- /results -->\n"
    assert "Not measured yet: `scripts/device_check`" in tables.fill(empty)
    assert tables.fill(tables.fill(empty)) == tables.fill(empty)


@pytest.mark.slow(buys="the check of a device runs to its end, in small sizes on the CPU")
def test_the_rehearsal_runs_every_part(tmp_path):
    file = tmp_path / "device.json"
    command = [sys.executable, str(ROOT / "scripts" / "device_check"), "--rehearse", "--out", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert result["failed"] == {}
    assert str(ROOT) not in file.read_text()
    (tests,) = [row for row in result["rows"] if row["group"] == "Tests"]
    assert tests["value"] == 1
    assert tests["detail"]["tests"] > 100
    groups = {row["group"] for row in result["rows"]}
    steps = {f"QG-MIL base 1024->512, train step in {name}" for name in ("float32", "bfloat16")}
    assert groups == {"Tests", "The device", "Small scans", "Encoding"} | steps
    assert sum(row["goal"] is not None for row in result["rows"]) == 5
