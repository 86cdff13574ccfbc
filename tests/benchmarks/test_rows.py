"""Tests of the rows of the benchmark and of their measures, on tiny bags."""

import importlib.util
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.benchmarks import batches, measure
from tests.benchmarks.rows import ROWS, Row, run
from tests.benchmarks.steps import STEPS, forward_only, training

ROOT = Path(__file__).parents[2]
NEEDS_TORCHMIL = [name for name in STEPS if name.startswith("torchmil")]
BENCHMARKED = [name for name in STEPS if name not in NEEDS_TORCHMIL or importlib.util.find_spec("torchmil")]


@pytest.mark.parametrize("name", BENCHMARKED)
def test_steps_run(name):
    for call in STEPS[name]().on(5).values():
        call()


def test_training_has_gradients_and_forward_only_has_none():
    net = nn.Linear(3, 1)
    before = net.weight.clone()
    forward_only(net)(torch.ones(1, 3))
    assert net.weight.grad is None
    training(net.parameters(), net)(torch.ones(1, 3))
    assert not torch.equal(net.weight, before)


def test_padded_bags_and_with_handlers_run():
    for call in batches.padded_bags(largest=320, count=3).values():
        call()
    for call in batches.with_handlers(instances=7, iterations=2).values():
        call()


def test_seconds_times_calls_in_turns_without_the_first():
    order = []
    times = measure.seconds({name: partial(order.append, name) for name in "ab"}, repeats=2)
    assert "".join(order) == "ababab"
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2}


def test_time_ratio_is_that_of_medians(monkeypatch):
    times = {"ours": [1.0, 2.0, 9.0], "theirs": [3.0, 8.0, 9.0], "bound": [1.0, 1.0, 5.0]}
    monkeypatch.setattr(measure, "seconds", lambda calls, repeats: times)
    ratio = measure.time_ratio(times, "theirs", "ours", repeats=3)
    assert (ratio.value, ratio.minima, ratio.bound) == (4.0, 3.0, 8.0)


def test_processor_ratio_counts_work_and_not_waiting():
    def work(rounds):
        sum(i * i for i in range(rounds))

    calls = {"waits": lambda: time.sleep(0.2), "works": partial(work, 2_000_000), "twice": partial(work, 4_000_000)}
    ratio = measure.processor_ratio(calls, "twice", "works", repeats=3)
    assert 1.4 < ratio.value < 2.8
    assert ratio.detail["twice_user_s"] > 10 * ratio.detail["twice_system_s"]
    assert measure.processor_ratio(calls, "waits", "works", repeats=1).value < 0.1


def test_paired_processor_ratio_is_a_lower_bound_of_work():
    def work(rounds):
        sum(i * i for i in range(rounds))

    calls = {"works": partial(work, 300_000), "twice": partial(work, 600_000)}
    ratio = measure.paired_processor_ratio(calls, "twice", "works", repeats=9)
    assert 1 < ratio.value == pytest.approx(ratio.detail["low"], abs=1e-3)
    assert ratio.value <= ratio.detail["ratio"] + 1e-3 <= ratio.detail["high"] + 2e-3


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (12, 3), (25, 8)])
def test_median_interval_is_that_of_order_statistics(n, k):  # k of tables of the binomial interval
    assert measure.median_interval(range(n, 0, -1)) == (k, n + 1 - k)
    with pytest.raises(ValueError, match="`values` must be at least 6, got 5"):
        measure.median_interval(range(5))


@pytest.mark.slow(buys="the memory that benchmarks report is that of the step")
def test_peak_memory_is_that_of_the_process_of_a_step():
    small, large = (measure.peak_memory("linear_MeanMIL", "forward", n) for n in (1, 100_000))
    assert small[1] - small[0] < 2**24
    assert large[1] - small[0] > 100_000 * 384 * 4  # the bag itself


@pytest.mark.slow(buys="the memory that benchmarks report is that of the step")
def test_peak_memory_names_the_error_of_a_failed_step():
    with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        measure.peak_memory("nothing", "forward", 1)


def test_run_returns_the_goal_of_a_row(monkeypatch):
    monkeypatch.setitem(
        ROWS, "row", Row("a / b", lambda: measure.Measurement(2.0, detail={"kib": 1}), 3.0, at_most=True)
    )
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
