"""Tests of the counts of floating-point operations."""

import pytest
import torch
from torch.nn import functional

from tests.benchmarks import flops
from tests.benchmarks.flops import copy_rate, count_flops, matrix_rate


def test_products_are_counted_in_both_directions():
    x, w = torch.randn(5, 3), torch.randn(3, 7, requires_grad=True)
    assert count_flops(lambda: x @ w) == 2 * 5 * 3 * 7
    assert count_flops(lambda: (x @ w).sum().backward()) == 2 * (2 * 5 * 3 * 7)  # the input needs no gradient


def test_fused_attention_has_two_products_forward_and_five_backward():
    q = torch.randn(1, 2, 11, 4, requires_grad=True)
    product = 2 * 2 * 11 * 11 * 4
    assert count_flops(lambda: functional.scaled_dot_product_attention(q, q, q)) == 2 * product
    assert count_flops(lambda: functional.scaled_dot_product_attention(q, q, q).sum().backward()) == 7 * product


def test_rates_are_those_of_the_fastest_call():
    times = iter([2.0, 1.0, 4.0, 4.0, 4.0, 8.0, 8.0, 2.0, 8.0, 8.0])

    def seconds(call):
        call()
        return next(times)

    assert matrix_rate(seconds, 10, torch.float32) == pytest.approx(2000)
    assert copy_rate(seconds, 100) == pytest.approx(100)


@pytest.mark.parametrize(
    ("able", "told", "half"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, "AVX-512, bfloat16", True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, "AVX-512, bfloat16", True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "AVX-512, no bfloat16", False),
        ({"avx2": True}, "no AVX-512, no bfloat16", False),
    ],
)
def test_the_processor_is_told_with_its_instructions(monkeypatch, able, told, half):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert flops.describe_processor().endswith(f"GiB, {told}, torch {torch.__version__}")
    assert flops.has_bfloat16() is half
