"""Tests of the experiment as a whole, on features of noise."""

import json
from dataclasses import replace

import pytest


@pytest.fixture
def runs():
    from experiments.claims import runs

    return runs


def test_finished_trainings_make_tables_and_the_rest_is_not_run(runs, small, encoded, tmp_path, monkeypatch):
    from experiments.claims import protocol, settings

    short = replace(small, seeds=(1,), training={**small.training, "epochs": 3})
    runners = runs.make_runners(short, encoded, tmp_path / "own", tmp_path / "benchmark")
    done = ("ABMIL", "ABMIL + anchor", "QG-MIL with no part")
    for name in done:
        runner, run = runs._make_run(short, name, 1)
        runners[runner].run_all([run], report=None)
    finished = runs.finished_runs(short, runners)
    assert [training.name for training in finished] == list(done)
    answers = runs.answer_all(short, finished, encoded)
    assert "received_auroc" in next(row for row in answers["QG-MIL with no part"][1] if row["label"])
    assert answers["QG-MIL with no part"][1][0]["attention_jsd"] > 0
    assert "attention_jsd" not in answers["ABMIL"][1][0]  # a training of the benchmark does not note it
    monkeypatch.setitem(settings.read_settings(), "min_seeds", 1)
    protocol.write_tables(answers, 12.3, [1, 2], folder=tmp_path)
    result = json.loads((tmp_path / "claims.json").read_text())
    rows = {row["claim"]: row for row in result["rows"]}
    plugin = rows["the anchor raises macro F1 of ABMIL"]
    assert plugin["verdict"] in ("reproduced", "contradicted", "no difference seen")
    assert plugin["ours"].startswith("macro F1 ")
    assert rows["the four parts raise macro F1"]["verdict"] == "not run"
    table = json.loads((tmp_path / "claims_qgmil.json").read_text())
    states = {row["name"]: row["num_seeds"] for row in table["rows"]}
    assert states["QG-MIL with no part"] == "not run: 1"
    assert states["QG-MIL with gate"] == "not run: 2"
    assert "sd_macro_f1" not in table["heads"]  # of one seed


def test_trainings_of_the_benchmark_are_not_repeated(runs, small):
    runner, run = runs._make_run(small, "QG-MIL with gate, QK norm, RMS norm, SwiGLU", 1)
    assert (runner, run.name) == ("benchmark", "one/QG-MIL/seed_1")
    assert runs._make_run(small, "QG-MIL with gate", 1)[0] == "own"


def test_rows_of_many_bags_replace_those_of_the_table(tmp_path):
    from experiments.claims import large, protocol

    first = {"claim": "the gate raises macro F1", "ours": "kept"}
    old = [first, {"claim": f"{large.START}of before", "ours": "old"}, *protocol.UNTESTED]
    (tmp_path / "claims.json").write_text(json.dumps({"note": "kept", "rows": old}))
    protocol._run_large("table", tmp_path / "missing.json", tmp_path / "claims.json")
    result = json.loads((tmp_path / "claims.json").read_text())
    new = [f"{large.START}{end}" for end in ("slices of ABMIL are ranked no worse", "keeps the bag AUROC of ABMIL")]
    assert [row["claim"] for row in result["rows"][:3]] == [first["claim"], *new]
    assert result["rows"][-3:] == protocol.UNTESTED
    assert result["note"] == "kept"
