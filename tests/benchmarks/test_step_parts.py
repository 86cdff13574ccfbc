"""Tests of the parts of a training step, on tiny bags."""

import time
from types import SimpleNamespace

import pytest

from tests.benchmarks import step_parts
from tests.benchmarks.flops import has_bfloat16
from tests.benchmarks.step_parts import PARTS, STEPS, Clock, hardware, parts_of, tried


def work(rounds=300_000):
    return sum(i * i for i in range(rounds))


def test_the_clock_counts_a_part_within_another_apart():
    clock, owner = Clock(), SimpleNamespace(inner=lambda: work(900_000))

    def outer():
        work()
        return owner.inner()

    with clock.counting("inner", [(owner, "inner")]):
        assert clock("outer", outer) == work(900_000)
    assert clock.spent["inner"] > 1.5 * clock.spent["outer"] > 0
    before = dict(clock.spent)
    owner.inner()
    assert clock.spent == before


def test_the_clock_counts_work_and_not_waiting():
    clock = Clock()
    clock("waits", lambda: time.sleep(0.1))
    assert clock.spent["waits"] < 0.05


@pytest.mark.parametrize(
    ("name", "more"),
    [("qgmil", set()), ("asmil", {"anchor"}), ("abmil", {"handlers"})],
    ids=["qgmil", "asmil", "abmil"],
)
def test_every_step_has_its_parts(name, more):
    row = parts_of(STEPS[name], instances=20, repeats=1)
    assert row["parts"].keys() == set(PARTS) - {"anchor", "handlers"} | more
    assert all(seconds > 0 for part, seconds in row["parts"].items() if part != "handlers")
    computed = sum(row["parts"][part] for part in ("forward", "attention", "backward"))
    assert row["rate"] == pytest.approx(row["flops"] / computed)
    assert row["what"].endswith("N = 20")


def test_the_operations_of_abmil_are_those_of_its_layers():
    n, f, e, a = 20, 1024, 512, 128
    attend, project, pool = 2 * n * e * 2 * a + 2 * n * a, 2 * n * f * e, 2 * n * e
    forward = project + attend + pool + 2 * e * 2
    # backward: the input needs no gradient
    assert parts_of(STEPS["abmil"], n, 1)["flops"] == pytest.approx(3 * forward - project, rel=0.01)


def test_what_was_tried_is_compared():
    found = tried(instances=8, repeats=1, backend="eager")
    assert len(found) == (3 if has_bfloat16() else 2)
    assert all(measured.value > 0 for measured in found.values())


def test_the_hardware_is_measured(monkeypatch):
    monkeypatch.setattr(step_parts, "matrix_rate", lambda seconds, size, dtype: 2e9)
    monkeypatch.setattr(step_parts, "copy_rate", lambda seconds, size: 3e9)
    monkeypatch.setattr(step_parts, "has_bfloat16", lambda: True)
    assert hardware() == {"float32_gflops": 2, "bfloat16_gflops": 2, "copy_gb": 3}
    monkeypatch.setattr(step_parts, "has_bfloat16", lambda: False)
    assert hardware() == {"float32_gflops": 2, "copy_gb": 3}
