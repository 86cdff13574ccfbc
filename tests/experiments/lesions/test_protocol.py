"""Tests of the benchmark as a whole, on features of noise."""

import json

import pytest


@pytest.fixture
def protocol():
    from experiments.lesions import protocol

    return protocol


def test_the_benchmark_writes_its_tables(protocol, small, encoded, tmp_path, capsys):
    benchmark = protocol.Benchmark(small, [1], ["WindowMIL"], tmp_path / "runs", encoded)
    assert benchmark.methods == ["center", "WindowMIL"]
    benchmark.train(["one", "many"])
    pairs = [(cohort, test) for cohort in small.cohorts for test in small.tests]
    tables = {pair: protocol.table_rows(benchmark.test(*pair), num_samples=20) for pair in pairs}
    protocol.write_results(tables, 1.0, small, tmp_path)
    center, window = json.loads((tmp_path / "lesions.json").read_text())["rows"]
    assert "difference" not in center["values"]
    expected = window["values"]["instance_auroc"] - center["values"]["instance_auroc"]
    assert window["values"]["difference"] == pytest.approx(expected)
    assert window["num_scans"] == 2 * window["num_positive"] == 12
    across = json.loads((tmp_path / "lesions_trained_on_many.json").read_text())
    assert across["rows"][1]["values"]["one"] == tables["many", "one"][1]["values"]["instance_auroc"]
    assert across["heads"]["two_difference"] == "2 lesions, less center"
    assert "one/WindowMIL/seed_1: done" in capsys.readouterr().out


def test_answers_are_kept_so_that_a_test_set_is_read_once(protocol, small, encoded, tmp_path):
    benchmark = protocol.Benchmark(small, [1], [], tmp_path, encoded)
    benchmark.train(["one"])
    rows = benchmark.test("one", "two")
    assert str(benchmark.answers("one", "two")) == str(rows)  # NaN is NaN again
    first, second = rows["center"][1][:2]
    assert "scores" not in first
    assert len(second["scores"]) == len(second["instance_label"]) == 30


def test_development_runs_refuse_the_seeds_of_the_benchmark(protocol):
    with pytest.raises(ValueError, match=r"`development` must be seeds that the benchmark does not use, got \[3\]"):
        protocol.main(["--development", "901", "3"])
