"""Tests of the commands scripts/reproduce, scripts/results and scripts/benchmark."""

import subprocess
import sys

import pytest

from tests.workflows import ROOT


@pytest.mark.parametrize(
    "name",
    [
        "ct",
        "semi_synthetic",
        "classical",
        "guidance",
        "lesions",
        "mnist_bags",
        "stability",
        "ct_protocol",
        "conformal",
        "rsna_ich",
    ],
)
def test_reproduce_shows_the_help_of_an_experiment(name, capsys):
    from experiments.reproduce import main

    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert "usage: scripts/reproduce" in capsys.readouterr().out


def test_reproduce_rejects_an_unknown_experiment(capsys):
    from experiments.reproduce import main

    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("reproduce", "--help"), ("benchmark", "--list"), ("results", "--check")])
def test_reproduce_results_and_benchmark_start_from_any_folder(words, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
