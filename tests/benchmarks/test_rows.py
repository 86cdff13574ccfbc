"""The benchmarks run, on bags that take no time, and compare what they say they compare."""

import importlib.util
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.benchmarks import batches, measure
from tests.benchmarks.rows import ROWS, Row, run
from tests.benchmarks.steps import STEPS, looking, training

ROOT = Path(__file__).parents[2]
NEEDS_TORCHMIL = [name for name in STEPS if name.startswith("torchmil")]
BENCHMARKED = [name for name in STEPS if name not in NEEDS_TORCHMIL or importlib.util.find_spec("torchmil")]


@pytest.mark.parametrize("name", BENCHMARKED)
def test_every_step_runs(name):
    for call in STEPS[name]().on(5).values():
        call()


def test_a_training_step_moves_the_weights_and_a_forward_does_not():
    net = nn.Linear(3, 1)
    before = net.weight.clone()
    looking(net)(torch.ones(1, 3))
    assert net.weight.grad is None
    training(net.parameters(), net)(torch.ones(1, 3))
    assert not torch.equal(net.weight, before)


def test_the_three_ways_to_train_on_bags_and_the_trainer_run():
    for call in batches.padded_bags(largest=320, count=3).values():
        call()
    for call in batches.with_handlers(instances=7, iterations=2).values():
        call()


def test_calls_are_timed_in_turns_and_the_first_is_not_counted():
    order = []
    times = measure.seconds({name: partial(order.append, name) for name in "ab"}, repeats=2)
    assert "".join(order) == "ababab"
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_that_of_medians(monkeypatch):
    times = {"ours": [1.0, 2.0, 9.0], "theirs": [3.0, 8.0, 9.0], "bound": [1.0, 1.0, 5.0]}
    monkeypatch.setattr(measure, "seconds", lambda calls, repeats: times)
    said = measure.time_ratio(times, "theirs", "ours", repeats=3)
    assert (said.value, said.minima, said.bound) == (4.0, 3.0, 8.0)


@pytest.mark.slow
def test_memory_of_a_step_is_that_of_its_process():
    small, large = (measure.peak_memory("linear_MeanMIL", "forward", n) for n in (1, 100_000))
    assert small[1] - small[0] < 2**24
    assert large[1] - small[1] > 100_000 * 384 * 4  # the bag itself


@pytest.mark.slow
def test_a_step_that_fails_says_why():
    with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        measure.peak_memory("nothing", "forward", 1)


def test_a_row_says_its_goal(monkeypatch):
    monkeypatch.setitem(ROWS, "row", Row("a / b", lambda: measure.Measured(2.0, detail={"kib": 1}), 3.0, at_most=True))
    assert run("row") == {
        "name": "row",
        "what": "a / b",
        "goal": 3.0,
        "stretch": None,
        "at_most": True,
        "value": 2.0,
        "minima": None,
        "bound": None,
        "detail": {"kib": 1},
    }


def test_the_table_says_what_was_missed(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs" / "results").mkdir(parents=True)
    script = tmp_path / "scripts" / "results"
    shutil.copytree(ROOT / "scripts" / "experiments", tmp_path / "scripts" / "experiments")
    shutil.copy(ROOT / "scripts" / "results", script)
    common = {
        "stretch": None,
        "minima": None,
        "bound": 4.0,
        "threads": 2,
        "detail": {"ours_kib": 1.5, "ours_seconds": 3},
    }
    rows = [
        {"name": "a", "what": "one", "goal": 2.0, "at_most": False, "value": 1.9} | common,
        {"name": "b", "what": "two", "goal": 2.0, "at_most": True, "value": 1.9} | common | {"stretch": 1.5},
    ]
    result = {"kind": "benchmark", "machine": "M", "versions": {"torch": "2"}, "note": "N", "rows": rows}
    (tmp_path / "docs" / "results" / "benchmarks.json").write_text(json.dumps(result))
    done = subprocess.run([sys.executable, str(script), "--benchmark"], capture_output=True, text=True, check=True)
    assert "| one; ours 1.5 KiB | >= 2 | **1.90, missed** | - | 4.00 |" in done.stdout
    assert "| two; ours 1.5 KiB | <= 2 (1.5) | 1.90 | - | 4.00 |" in done.stdout
    assert "On M, 2 threads; torch 2." in done.stdout
