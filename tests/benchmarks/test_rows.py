"""Tests of the rows of the benchmark and of their measures, on tiny bags."""

import importlib.util
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.benchmarks import batches, measure, rows
from tests.benchmarks.flops import describe_processor
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


def test_calls_take_turns_without_counting_the_first():
    order = []
    spent = measure.take_turns({name: partial(order.append, name) for name in "ab"}, repeats=3)
    assert "".join(order) == "abbaabba"
    assert {name: len(seconds) for name, seconds in spent.items()} == {"a": 3, "b": 3}


def measured(monkeypatch, **sides):
    """Let calls take given user seconds, a tenth of them system seconds, and ten times as many by the clock."""
    spent = {name: [measure.Spent(t, t / 10, 10 * t) for t in times] for name, times in sides.items()}
    monkeypatch.setattr(measure, "take_turns", lambda calls, repeats: spent)
    return spent


@pytest.mark.parametrize("clock", ["processor", "wall"])
def test_paired_ratio_is_the_median_of_the_pairs(monkeypatch, clock):
    calls = measured(monkeypatch, ours=[1.0, 2.0, 4.0], theirs=[3.0, 8.0, 8.0], bound=[1.0, 1.0, 8.0])
    ratio = measure.paired_ratio(calls, "theirs", "ours", repeats=3, clock=clock)
    assert (ratio.value, ratio.bound) == pytest.approx((3, 3))
    assert ratio.interval is None
    assert (ratio.clock, ratio.turns, list(ratio.seconds)) == (clock, 3, ["theirs", "ours", "bound"])
    assert ratio.seconds["ours"] == pytest.approx({"user": 2.0, "system": 0.2, "wall": 20.0, "spread": 1.5})


def test_paired_ratio_has_the_interval_of_the_median(monkeypatch):
    times = [3.0, 1.0, 2.0, 6.0, 5.0, 4.0, 9.0, 8.0, 7.0]
    calls = measured(monkeypatch, ours=[1.0] * 9, theirs=times)
    assert measure.paired_ratio(calls, "theirs", "ours", repeats=9).interval == pytest.approx((2, 8))


def test_paired_ratio_counts_work_and_not_waiting():
    def work(rounds):
        sum(i * i for i in range(rounds))

    calls = {"waits": lambda: time.sleep(0.1), "works": partial(work, 500_000), "twice": partial(work, 1_000_000)}
    ratio = measure.paired_ratio(calls, "twice", "works", repeats=9)
    assert 1.4 < ratio.value < 2.8
    low, high = ratio.interval
    assert 1 < low <= ratio.value <= high
    assert measure.paired_ratio(calls, "waits", "works", repeats=1).value < 0.1
    assert measure.paired_ratio(calls, "waits", "works", repeats=1, clock="wall").value > 0.5


def test_the_allocator_is_the_loaded_one(monkeypatch):
    assert measure.allocator("7f00 /usr/lib/libjemalloc.so.2") == "jemalloc"
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert measure.allocator("7f00 /usr/lib/libc.so.6") == "glibc"
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(16 * measure.GIB))
    assert measure.allocator() == "glibc, freed memory kept"


@pytest.mark.parametrize("name", [name for name in BENCHMARKED if not name.startswith(("linear", "million"))])
def test_both_sides_have_the_same_optimizer(name, monkeypatch):
    seen, create = [], torch.optim.Optimizer.__init__

    def note(self, params, defaults):
        seen.append((type(self), str(defaults)))
        create(self, params, defaults)

    monkeypatch.setattr(torch.optim.Optimizer, "__init__", note)
    STEPS[name]()
    assert len(set(seen)) <= 1


def test_every_group_has_rows():
    assert {rows.group_of(name) for name in ROWS} >= set(rows.GROUPS)
    assert rows.group_of("something new") == "Other costs"


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
    measurement = measure.Measurement(2.0, detail={"kib": 1})
    monkeypatch.setitem(ROWS, "row", Row("a / b", lambda: measurement, 3.0, at_most=True))
    goal = {"name": "row", "what": "a / b", "goal": 3.0, "stretch": None, "at_most": True}
    where = {"allocator": measure.allocator(), "machine": describe_processor()}
    assert run("row") == {**goal, **measurement._asdict(), **where}


@pytest.mark.parametrize("able", [True, False])
def test_a_row_of_bfloat16_needs_a_processor_that_has_it(monkeypatch, able):
    monkeypatch.setattr(rows, "has_bfloat16", lambda: able)
    monkeypatch.setitem(ROWS, "row", Row("a / b", lambda: measure.Measurement(2.0), 3.0, bfloat16=True))
    found = run("row")
    assert found.get("value") == (2.0 if able else None)
    assert found.get("unmeasured") == (None if able else "this CPU has no bfloat16 instructions")


def test_every_row_of_bfloat16_says_so():
    assert {name for name, row in ROWS.items() if "bfloat16" in row.what} == {n for n, r in ROWS.items() if r.bfloat16}


def test_seconds_of_a_call_are_those_of_the_processor(monkeypatch):
    measured(monkeypatch, call=[1.0, 2.0, 4.0, 3.0, 5.0, 6.0])
    found = measure.seconds_of(lambda: None, 6)
    assert (found.value, found.turns, found.clock) == (pytest.approx(3.85), 6, "processor")
    assert found.interval == pytest.approx((1.1, 6.6))
    assert found.seconds["call"]["user"] == 3.5
