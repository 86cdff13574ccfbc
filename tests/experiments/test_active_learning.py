"""Tests of the comparison of orders of labeling."""

import importlib

import numpy as np
import pytest
import torch

SMALL = {"budget": 8, "start": 4, "step": 2, "steps": 3, "hidden_size": 4}
STRATEGIES = ["random", "uncertainty", "diversity", "uncertainty and diversity"]


@pytest.fixture
def code():
    return importlib.import_module("experiments.active_learning")


@pytest.fixture
def order(code, pool):
    return lambda strategy: code.label_in_order(pool, strategy, code.Settings(**SMALL), 3)


@pytest.fixture
def pool(code):
    torch.manual_seed(0)
    labels = [0, 1] * 10
    return code.Pool([torch.randn(3 + i % 3, 6) + 3 * label for i, label in enumerate(labels)], labels)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_label_in_order_starts_all_strategies_alike_and_labels_nothing_twice(code, pool, order, strategy):
    assert list(code.STRATEGIES) == STRATEGIES
    labeled = order(strategy)
    assert len(set(labeled)) == len(labeled) == 8
    assert labeled[:4] == order("random")[:4]
    assert labeled == order(strategy)
    assert set(pool.labels[labeled[:4]]) == {0, 1}


def test_label_in_order_asks_for_the_least_certain_scans_first(code, pool, order, monkeypatch):
    pool.train = lambda labeled, settings, seed: None
    number = {id(bag): i for i, bag in enumerate(pool.bags)}
    monkeypatch.setattr(code, "predict", lambda net, bags: np.array([0.5 + number[id(bag)] / 50 for bag in bags]))
    labeled = order("uncertainty")
    rest = sorted(set(range(20)) - set(labeled[:4]))
    assert labeled[4:] == rest[:4]


def test_farthest_first_equals_its_definition(code):
    points = np.array([[0.0], [1.0], [10.0], [11.0], [5.0]])
    assert code.farthest_first(points, [0], [1, 2, 3, 4], 3) == [3, 4, 1]


def test_components_have_about_variance_1_and_are_nearly_uncorrelated(code):
    torch.manual_seed(1)
    slices = torch.randn(500, 8) * torch.arange(1, 9) + 5
    found = code.components(slices, 3)(slices)
    assert torch.allclose(found.T.cov(correction=0), torch.eye(3), atol=0.05)  # the method draws at random
    assert torch.allclose(found.mean(0), torch.zeros(3), atol=1e-4)


def test_auroc_equals_the_share_of_pairs_in_the_right_order(code):
    rng = np.random.default_rng(0)
    labels, scores = np.arange(30) % 3 == 0, rng.integers(5, size=30)
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert code.auroc(labels, scores) == pytest.approx(np.mean(pairs))


def test_table_rows_pair_the_difference_to_random(code):
    labels = np.array([0, 1] * 20)
    noise = np.random.default_rng(0).normal(size=(2, 1, 40))
    scores = {"random": noise, "uncertainty": noise, "diversity": noise + 9 * labels}
    rows = {row["name"]: row for row in code.table_rows(scores, labels, dict.fromkeys(scores, 0.5), 50)}
    assert rows["uncertainty"]["interval_95"]["less_random"] == [0, 0]
    assert rows["diversity"]["values"]["auroc"] == 1
    assert rows["diversity"]["interval_95"]["less_random"][0] > 0
    assert "less_random" not in rows["random"]["values"]
