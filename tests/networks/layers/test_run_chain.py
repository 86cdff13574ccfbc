"""Tests of the sums over sets of runs: number of sets, products one by one, gradients."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.layers.run_chain import log_prefix_products, sum_over_runs


@pytest.mark.parametrize("n", [1, 2, 3, 10, 20])
def test_there_are_two_to_the_n_sets_but_for_the_empty_one(n):
    zero, valid = torch.zeros(1, dtype=torch.float64), (torch.arange(n + 2) < n).view(1, -1, 1)
    total, inside = sum_over_runs(torch.zeros(1, n + 2, 1, dtype=torch.float64), zero, zero, valid)
    assert_close(total.exp(), torch.full((1, 1), 2.0**n - 1, dtype=torch.float64))
    assert_close(inside.exp()[0, :n, 0], torch.full((n,), 2.0 ** (n - 1) / (2.0**n - 1), dtype=torch.float64))


def test_posterior_is_the_derivative_of_the_sum_by_the_evidence():
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    enter, stay = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    valid = (torch.arange(7) < torch.tensor([[6], [3]])).unsqueeze(2)
    total, inside = sum_over_runs(s, enter, stay, valid)
    total.sum().backward()
    assert_close(inside.exp().where(valid, 0.0), s.grad)


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_prefix_products_are_those_one_by_one(n):
    matrices = torch.rand(2, n, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product, products = torch.eye(4, dtype=torch.float64), log_prefix_products(matrices.log()).exp()
    for i in range(n):
        product = product @ matrices[:, i]
        assert_close(products[:, i], product)


def test_sum_without_a_set_is_finite_with_gradient_zero():
    s = torch.zeros(1, 3, 1, requires_grad=True)
    total, _ = sum_over_runs(s, torch.zeros(1), torch.zeros(1), torch.zeros(1, 3, 1, dtype=torch.bool))
    total.sum().backward()
    assert total.isfinite().all()
    assert_close(s.grad, torch.zeros_like(s))
