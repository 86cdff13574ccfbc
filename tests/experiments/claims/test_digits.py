"""Tests of MNIST-bags with fixed features, on bright and dark squares."""

import json

import pytest
import torch

from tests.experiments.mnist_bags import write_digits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def digits(monkeypatch):
    from experiments.claims import digits, settings

    small = {"seeds": [1, 2], "components": 4, "num_train": 12, "num_test": 10}
    monkeypatch.setitem(settings.read_settings(), "digits", small)
    return digits


def test_bags_are_standardized_by_the_training_bags_and_parts_share_no_digit(digits, data):
    options = {"seed": 1, "components": 4, "num_train": 12, "num_test": 10}
    train, test = digits.draw_bags(data, options, "test")
    assert (len(train), len(test)) == (12, 10)
    rows = torch.cat([bag["image"] for bag in train])
    torch.testing.assert_close(rows.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert float(torch.cat([bag["image"] for bag in test]).mean(0).abs().max()) > 1e-3
    assert {bag["case_id"].split("-")[0] for bag in (*train, *test)} == {"11", "13"}  # seeds of the parts
    assert {bag["label"] == int(bag["instance_label"].max()) for bag in test} == {True}


def test_only_new_trainings_read_test_bags_and_each_read_is_logged(digits, data, tmp_path):
    runner, log = digits._runner(tmp_path, data), tmp_path / "log.jsonl"
    runs = [run for run in digits.runs() if run.settings["variant"] in ("ABMIL", "QG-MIL with no part", "CLAM")]
    assert len(runs) == 6
    runner.run_all(runs[:4], report=None)
    digits.answer_all(tmp_path, data=data, log=log)
    answers = digits.read_answers(tmp_path)
    rows = answers["QG-MIL with no part"][1]
    assert len(rows) == 10
    assert {*rows[0]} >= {"label", "probability", "entropy_ratio"}
    assert "received_auroc" in next(row for row in rows if row["label"])
    assert all("instance_auroc" not in row for row in rows if not row["label"])
    digits.answer_all(tmp_path, data=data, log=log)  # nothing is new
    assert len(log.read_text().splitlines()) == 2
    runner.run_all(runs, report=None)
    with pytest.raises(RuntimeError, match="`again` must say why 'digits' of seed"):
        digits.answer_all(tmp_path, data=data, log=log)
    digits.answer_all(tmp_path, "two more trainings", data, log)
    assert json.loads(log.read_text().splitlines()[-1])["again"] == "two more trainings"
    assert digits.read_answers(tmp_path)["QG-MIL with no part"][1] == rows
    cost = digits.read_cost(tmp_path, data)
    assert (cost.finished, cost.total) == (6, 50)
    assert cost.remaining == pytest.approx(44 / 6 * cost.seconds)


def test_the_weights_of_a_training_give_its_answers(digits, data, tmp_path):
    from experiments.classical.predictions import train_network

    run = next(run for run in digits.runs() if run.settings["variant"] == "CLAM")
    runner = digits._runner(tmp_path, data)
    runner.run_all([run], report=None)
    train, test = digits.draw_bags(data, run.settings, "test")
    net = digits._load(runner.run_folder(run) / digits.WEIGHTS, run, 4)
    assert digits.answer_bags(net, test) == digits.answer_bags(
        train_network(run.settings["config"], train, run.settings["seed"]), test
    )
