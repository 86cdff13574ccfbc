"""Tests of the log of a study in MLflow."""

import json
import logging

import pytest

from monai_mil_ext.apps.study.tracking import log_report
from monai_mil_ext.utils import keep_loggers

mlflow = pytest.importorskip("mlflow")

REPORT = {
    "methods": {"ABMIL": {"settings": {"epochs": 3}}, "QGMIL": {}},
    "summaries": {"ABMIL": {"values": {"auroc": {"value": 0.8, "low": 0.7, "high": None}}}, "QGMIL": None},
}


@pytest.fixture(autouse=True)
def _loggers():
    """The clients of these tests prepare databases, too, which would silence the loggers of all later tests."""
    with keep_loggers():
        yield


def test_loggers_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    ours, level = logging.getLogger("monai_mil_ext.some.module"), logging.root.level
    log_report(f"sqlite:///{tmp_path / 'mlflow.db'}", "study", tmp_path)
    assert not ours.disabled
    assert logging.root.level == level


def test_a_run_for_each_method_with_settings_metrics_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the files of a local store
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "folds.csv").write_text("fold\n0\n")
    log_report(f"sqlite:///{tmp_path / 'mlflow.db'}", "study", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("study")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["ABMIL"].data.metrics == {"auroc": 0.8, "auroc_low": 0.7}
    assert runs["ABMIL"].data.params == {"epochs": "3"}
    assert runs["QGMIL"].data.tags["failed"] == "true"


@pytest.mark.parametrize("prefix", ["", "file:", "file://"])
def test_a_folder_keeps_runs_and_files(prefix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study, store = tmp_path / "study", tmp_path / "store"
    study.mkdir()
    (study / "report.json").write_text(json.dumps(REPORT))
    for _ in range(2):
        log_report(f"{prefix}{store}", "study", study)
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    assert len(client.search_runs([client.get_experiment_by_name("study").experiment_id])) == 4
    assert len(list(store.glob("files/*/artifacts/report.json"))) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "study"]
