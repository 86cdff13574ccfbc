"""Tests of the command that measures speed and memory."""

import json

import pytest
from experiments import speed

ROW = {
    "name": "abmil",
    "value": 1.25,
    "interval": (1.2, 1.3),
    "seconds": {"ours": {"user": 1.0, "system": 0.0, "wall": 1.5, "spread": 0.1}},
    "threads": 1,
    "allocator": "glibc",
    "load": [0.5, 1.0],
    "turns": 15,
    "clock": "processor",
    "wall_seconds": 30,
}


def test_a_row_that_fails_does_not_end_the_others(monkeypatch, capsys):
    def run(module, name, **options):
        if name == "abmil":
            raise RuntimeError("no torchmil")
        return {**ROW, "name": name}

    monkeypatch.setattr(speed, "run", run)
    with pytest.raises(SystemExit, match=r"^1 of 2 rows failed: abmil$"):
        speed.main(["--dry-run", "abmil", "received"])
    told = capsys.readouterr().out
    assert "abmil ... failed: no torchmil" in told
    assert "received ... 1.25 [1.2, 1.3] in 30 s\n  ours: user 1 s, system 0 s, wall 1.5 s, spread 10 %\n" in told
    assert told.endswith("1 threads, glibc, load 0.5 to 1.0, 15 turns of processor seconds\n")


def test_a_row_that_means_nothing_here_is_told_and_kept(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(speed, "FILE", tmp_path / "benchmarks.json")
    monkeypatch.setattr(speed, "run", lambda module, name, **options: {"name": name, "unmeasured": "this CPU is old"})
    with pytest.raises(SystemExit, match=r"^no row was measured$"):
        speed.main(["qgmil_bf16"])
    assert capsys.readouterr().out == "qgmil_bf16 ... not measured: this CPU is old\n"
    assert not speed.FILE.exists()


def test_rows_keep_the_machine_where_they_were_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "FILE", tmp_path / "benchmarks.json")
    speed.save([ROW | {"name": "received", "machine": "first"}, ROW | {"machine": "first"}], 1)
    speed.save([ROW | {"machine": "second"}], 1)
    machines = {row["name"]: row["machine"] for row in json.loads(speed.FILE.read_text())["rows"]}
    assert machines == {"received": "first", "abmil": "second"}


def test_profiles_are_kept_beside_new_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    rates = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(
        speed, "run", lambda module, name, threads: {"name": name, "gflops": next(rates), "wall_seconds": 1}
    )
    speed.main(["--profiles", "cohort", "peer_att"])
    speed.main(["--profiles", "cohort"])
    found = json.loads((tmp_path / "profiles.json").read_text())
    assert [(row["name"], row["gflops"]) for row in found["rows"]] == [("peer_att", 2.0), ("cohort", 3.0)]
    assert len(found["unmeasured"]) == len(speed.PROFILES) - 2


def test_a_command_that_fails_is_told():
    with pytest.raises(RuntimeError, match=r"(?s)`tests.benchmarks.rows` ended with code 1:.*KeyError: 'no_row'"):
        speed.run("tests.benchmarks.rows", "no_row", threads=1)
