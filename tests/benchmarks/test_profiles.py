"""Tests of the profiles of both sides of a row, on tiny bags."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from tests.benchmarks import profiles
from tests.benchmarks.profiles import PARTS, PROFILES, Kernels, Profile, cost_of_measuring, part_of, parts_of, run
from tests.benchmarks.rows import ROWS


def work(rounds):
    return sum(i * i for i in range(rounds))


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        (torch.ops.aten.addmm.default, "products"),
        (torch.ops.aten.mm.default, "products"),
        (torch.ops.aten.bmm.default, "attention"),
        (torch.ops.aten._softmax_backward_data.default, "attention"),
        (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default, "attention"),
        (torch.ops.aten._fused_adamw_.default, "optimizer"),
        (torch.ops.aten.clone.default, "copies"),
        (torch.ops.aten.view.default, "Python"),
        (torch.ops.aten.native_layer_norm.default, "elementwise"),
        (torch.ops.aten.mul.Tensor, "elementwise"),
        (torch.ops.aten.sum.dim_IntList, "elementwise"),
    ],
)
def test_kernels_belong_to_parts(kernel, part):
    assert part_of(kernel) == part


def test_kernels_of_both_directions_are_counted():
    x, w = torch.randn(300, 200), torch.randn(200, 400, requires_grad=True)
    with Kernels() as forward:
        out = x @ w
    with Kernels() as backward:
        functional.relu(out).sum().backward()
    assert set(forward.spent) == {"products"}
    assert {"products", "elementwise"} <= set(backward.spent)


def test_what_no_kernel_takes_is_python():
    a = torch.randn(700, 700)
    products, flops = parts_of(lambda: a @ a, repeats=3)
    assert flops == 2 * 700**3
    assert list(products) == list(PARTS)
    assert products["products"] > sum(seconds for part, seconds in products.items() if part != "products")
    python, _ = parts_of(partial(work, 500_000), repeats=3)
    assert python["Python"] > 0.9 * sum(python.values()) > 0
    halves, _ = parts_of(partial(work, 500_000), repeats=3, steps=2)
    assert halves["Python"] < 0.8 * python["Python"]


def test_pages_are_the_seconds_of_the_system():
    parts, _ = parts_of(lambda: [torch.zeros(2**24) for _ in range(4)], repeats=3)
    assert parts["pages"] > 0.005  # 256 MiB of new pages
    assert parts_of(partial(work, 300_000), repeats=3)[0]["pages"] < parts["pages"]


def test_the_cost_of_measuring_is_left_out():
    x, cost = torch.zeros(1), cost_of_measuring()
    assert 0 < cost < 1e-3

    def kernels():
        for _ in range(500):
            x + 1

    assert parts_of(kernels, 3, cost=cost)[0]["elementwise"] < parts_of(kernels, 3)[0]["elementwise"]


@pytest.mark.parametrize("name", ["qgmil_train_500", "peer_att_trans", "chunks_abmil_forward"])
def test_both_sides_of_a_row_are_profiled(name, monkeypatch):
    plain = profiles.of_step
    monkeypatch.setattr(profiles, "of_step", lambda *args: plain(*args[:-1], 20))
    row = PROFILES[name]
    make = partial(profiles.of_step, *row.make.args)
    monkeypatch.setitem(PROFILES, name, row._replace(make=make))
    monkeypatch.setattr(profiles, "matrix_rate", lambda *args: 1e9)
    found = run(name, repeats=1)
    assert list(found["sides"]) == [row.over, row.under]
    assert all(parts["products"] > 0 for parts in found["sides"].values())
    assert found["least"] > 0
    assert found["gflops"] == 1.0
    assert found["goal"] == ROWS[name].goal


def test_a_cohort_is_inferred_as_by_the_network():
    calls = profiles.of_cohort(bags=2, instances=30)
    assert parts_of(calls["cohort"], 1, steps=2)[0]["products"] > 0
    assert parts_of(calls["forward"], 1, steps=2)[0]["products"] > 0
    state = calls["cohort"].__self__.state
    assert (state.epoch_length, state.output[0]["attention"].shape) == (2, (30, 1))
    assert state.output[0]["pred"].sum() == pytest.approx(1)


def test_what_a_side_is_measured_without_is_subtracted(monkeypatch):
    spent = {"both": (5.0, 7e9), "plain": (3.0, 4e9), "loop": (1.0, 9e9)}
    monkeypatch.setattr(
        profiles, "parts_of", lambda call, *args: (dict.fromkeys(PARTS, spent[call.name][0]), spent[call.name][1])
    )
    monkeypatch.setattr(profiles, "matrix_rate", lambda *args: 1e9)
    calls = {name: SimpleNamespace(name=name) for name in spent}
    row = Profile("w", lambda: calls, "both", "loop", "both", 1.0, "beyond", without={"both": "plain"})
    monkeypatch.setitem(PROFILES, "row", row)
    found = run("row")
    assert found["sides"] == {"both": dict.fromkeys(PARTS, 2.0), "loop": dict.fromkeys(PARTS, 1.0)}
    assert found["least"] == 3.0


def test_goals_are_those_of_the_rows():
    for name, row in PROFILES.items():
        if name in ROWS:
            goal = row.goal * (1e3 if row.compared == "beyond" else 1)
            assert (goal, row.at_most) == (pytest.approx(ROWS[name].goal), ROWS[name].at_most)
