"""Tests of a whole study."""

import csv
import json
import os
import signal
import time
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import (
    Clinical,
    FoldPlan,
    Predictions,
    RunsFailedError,
    Selection,
    Study,
    StudyOptions,
    StudyRunner,
    TrainingSettings,
    read_study_model,
)
from monai_mil_ext.apps.study.work import predict_bags
from tests.apps.study.cohort_bags import TASKS, make_items
from tests.utils.dask_clusters import cluster

FEW = TrainingSettings(epochs=2, learning_rate=0.05)
OPTIONS = StudyOptions(num_samples=20)
TIMES = ("wall_seconds", "cpu_seconds", "date")


def make_study(items, folder, methods="MeanMIL", num_folds=2, kind="classification", **values):
    options = {"training": FEW, "options": OPTIONS} | values
    return Study(items, folder, TASKS[kind], methods, FoldPlan(num_folds), **options)


def report(folder):
    content = json.loads((folder / "report.json").read_text())
    content.pop("provenance")
    return content


def run_times(folder):
    return {path.parent: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/run.json")}


def test_a_study_writes_predictions_models_and_a_report(tmp_path):
    items = make_items(tmp_path)
    training = TrainingSettings(epochs=10, learning_rate=0.05)
    path = make_study(items, tmp_path / "study", "MeanMIL,ABMIL", training=training).run()
    assert path == tmp_path / "study" / "report.html"
    rows = Predictions.read(tmp_path / "study/predictions/ABMIL.csv").of_part("test")
    assert sorted(rows.case_id) == [item["case_id"] for item in items]
    assert {file.name for file in (tmp_path / "study/models/ABMIL").iterdir()} == {"model.json", "model.pt"}
    assert report(tmp_path / "study")["summaries"]["ABMIL"]["values"]["auroc"]["value"] > 0.9
    assert str(tmp_path) not in path.read_text()


@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "classification"])
@pytest.mark.slow(buys="every kind of task from items to a report")
def test_each_task_from_items_to_a_report(kind, tmp_path):
    items = make_items(tmp_path, kind, 48)
    make_study(items, tmp_path / "study", "ABMIL", kind=kind, training=TrainingSettings(epochs=15)).run()
    summary = report(tmp_path / "study")["summaries"]["ABMIL"]
    assert summary["values"][summary["main"]]["value"] > 0.6


def test_equal_seeds_give_equal_tables(tmp_path):
    items = make_items(tmp_path)
    for name in ("a", "b"):
        make_study(items[:: 1 if name == "a" else -1], tmp_path / name).run()
    assert report(tmp_path / "a") == report(tmp_path / "b")
    assert (tmp_path / "a/predictions/MeanMIL.csv").read_bytes() == (
        tmp_path / "b/predictions/MeanMIL.csv"
    ).read_bytes()


def test_a_method_that_is_added_repeats_nothing(tmp_path):
    items = make_items(tmp_path)
    make_study(items, tmp_path / "study").run()
    before = run_times(tmp_path / "study")
    make_study(items, tmp_path / "study", "MeanMIL,MaxMIL").run()
    after = run_times(tmp_path / "study")
    assert {path: after[path] for path in before} == before
    assert len(after) == 4


def test_a_folder_has_no_results_that_its_report_does_not_cover(tmp_path):
    items = [{**item, "covariates": {"age": str(50 + i)}} for i, item in enumerate(make_items(tmp_path))]
    folder = tmp_path / "study"
    make_study(items, folder, "MeanMIL,MaxMIL", clinical=Clinical()).run()
    assert (folder / "models/MeanMIL/clinical.json").exists()
    make_study(items, folder).run()
    assert [path.name for path in (folder / "predictions").iterdir()] == ["MeanMIL.csv"]
    assert {path.name for path in (folder / "models").rglob("*")} == {"MeanMIL", "model.json", "model.pt"}
    assert (folder / "runs/MaxMIL/fold_0/model.pt").exists()


def test_a_case_that_is_added_changes_no_fold_of_the_others(tmp_path):
    items = make_items(tmp_path)
    first = make_study(items[:-1], tmp_path / "study")
    first.run()
    second = make_study(items, tmp_path / "study")
    second.run()
    for before, after in zip(first.work.splits.folds, second.work.splits.folds, strict=True):
        assert all(set(before[part]) <= set(after[part]) for part in before)


def test_no_training_depends_on_the_times_of_its_test_part(tmp_path):
    items = make_items(tmp_path, "survival")
    first = make_study(items, tmp_path / "study", kind="survival").work
    test = set(first.splits.folds[0]["test"])
    later = [{**item, "time": 100 * item["time"]} if item["case_id"] in test else item for item in items]
    second = make_study(later, tmp_path / "later", kind="survival").work
    assert first.splits == second.splits
    assert first.task != second.task
    before, after = ([run.settings for run in work.runs()] for work in (first, second))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_networks_of_all_folds_answer_in_the_same_bins(tmp_path):
    items = [{**item, "time": 3.0**i} for i, item in enumerate(make_items(tmp_path, "survival"))]
    study = make_study(items, tmp_path / "study", kind="survival")
    facts = json.loads(study.run().with_suffix(".json").read_text())
    work = study.work
    edges = [work.task_of(fold).bin_edges for fold in range(2)]
    assert edges[0] != edges[1]
    model = read_study_model(tmp_path / "study/models/MeanMIL")
    assert model.task == work.task
    predicted = Predictions.read(tmp_path / "study/predictions/MeanMIL.csv")
    assert predicted.times.tolist() == list(work.task.bin_edges[:-1])
    again = predict_bags(model.network, items, work.task)
    assert np.isfinite(again.survival).all()
    assert (np.diff(again.survival, axis=1) <= 0).all()
    assert any("by quantiles of all events" in note for note in facts["notes"])


def test_parts_on_several_machines_give_the_same_report(tmp_path):
    items = make_items(tmp_path)
    make_study(items, tmp_path / "whole").run()
    assert make_study(items, tmp_path / "parts").run((1, 2)) is None
    assert make_study(items, tmp_path / "parts").run((2, 2)) == tmp_path / "parts" / "report.html"
    assert report(tmp_path / "parts") == report(tmp_path / "whole")


def test_a_broken_bag_file_is_left_out(tmp_path, capsys):
    items = make_items(tmp_path)
    broken = tmp_path / "doe_jane.h5"
    broken.write_bytes(b"not a bag")
    items.append({**items[0], "case_id": "broken", "patient": "x", "image": str(broken)})
    make_study(items, tmp_path / "study").run()
    with (tmp_path / "study/left_out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case_id"] == "broken"
    assert capsys.readouterr().out.count("broken") == 1
    assert "python" in json.loads((tmp_path / "study/study.json").read_text())["provenance"]["command"]
    for path in (tmp_path / "study").rglob("*.[hjc]*"):
        assert b"doe_jane" not in path.read_bytes(), path.name


def test_a_method_that_fails_is_named_and_ends_no_other(tmp_path):
    items = make_items(tmp_path)
    broken = {"_target_": "torch.nn.Linear", "out_features": 2, "name": "broken"}
    make_study(items, tmp_path / "study", ["MeanMIL", {**broken, "in_features": 7}]).run()
    content = report(tmp_path / "study")
    assert content["summaries"]["broken"] is None
    assert any("broken failed in fold 0, 1" in note for note in content["notes"])
    with pytest.raises(RunsFailedError, match="2 of 2 runs failed"):
        make_study(items, tmp_path / "other", [{**broken, "in_features": 7}]).run()


def test_settings_of_a_selection_must_be_those_of_each_method(tmp_path):
    items = make_items(tmp_path)
    with pytest.raises(ValueError, match="hidden_size"):
        make_study(items, tmp_path / "study", "ABMIL,MeanMIL", selection=Selection({"hidden_size": [8]}))
    with pytest.raises(ValueError, match="`items` must not be empty"):
        make_study([], tmp_path / "study")


def test_a_refitted_model_is_one_network(tmp_path):
    items = make_items(tmp_path)
    make_study(items, tmp_path / "study", options=StudyOptions(num_samples=20, refit=True)).run()
    record = json.loads((tmp_path / "study/models/MeanMIL/model.json").read_text())
    assert record["network"]["class"] == "StandardizedNet"
    assert record["cohort"]["cases"] == 36


def run_whole_study(items, folder):
    training = TrainingSettings(epochs=20, patience=20, learning_rate=0.01)
    make_study(items, folder, "ABMIL,MeanMIL", training=training).run()


def started(*args):
    """Start a study in a process forked from one that has imported the package, which takes longer than the study."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.apps.study.cohort_bags"])
    process = context.Process(target=run_whole_study, args=args)
    process.start()
    return process


def ended(process):
    """Exit status of a process; it is removed."""
    process.join()
    code = process.exitcode
    process.close()
    return code


@pytest.mark.slow(buys="a study that is killed at any point continues to the same tables")
def test_a_killed_study_continues_to_the_same_tables(tmp_path):
    items, folder, codes = make_items(tmp_path), tmp_path / "killed", []
    assert ended(started(items, tmp_path / "whole")) == 0
    for marker in ("runs/ABMIL/fold_0/run.json", "runs/MeanMIL/fold_0/run.json", "predictions/ABMIL.csv"):
        process = started(items, folder)
        while process.is_alive() and not (folder / marker).exists():
            time.sleep(0.01)
        process.kill()
        codes.append(ended(process))
    assert codes == [-signal.SIGKILL] * 3
    assert ended(started(items, folder)) == 0
    assert report(folder) == report(tmp_path / "whole")


@pytest.mark.slow(buys="no result is better than chance where labels are noise")
def test_labels_that_are_noise_give_an_auroc_of_one_half(tmp_path):
    values, covered = [], []
    for seed in range(8):
        (tmp_path / str(seed)).mkdir()
        items = make_items(tmp_path / str(seed), num_cases=40, noise=True, seed=seed)
        selection = Selection({"learning_rate": [0.001, 0.05]})
        options = StudyOptions(num_samples=200)
        folder = tmp_path / f"study_{seed}"
        make_study(items, folder, "ABMIL", num_folds=4, selection=selection, options=options).run()
        auroc = report(folder)["summaries"]["ABMIL"]["values"]["auroc"]
        values.append(auroc["value"])
        covered.append(auroc["low"] <= 0.5 <= auroc["high"])
    assert abs(np.mean(values) - 0.5) < 0.1
    assert sum(covered) >= 6


def die_once(work, run, folder):
    """Execute a run, and kill the process of the second one before its record is written, once."""
    record = work(run, folder)
    mark = folder / "killed"
    if run.name == "ABMIL/fold_0" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return record


@pytest.mark.slow(buys="two workers of a real Dask cluster, one of them killed: every file as from one process")
def test_runs_of_a_dask_cluster_with_a_killed_worker_equal_those_of_one_process(tmp_path):
    work = make_study(make_items(tmp_path), tmp_path / "study", "MeanMIL,ABMIL").work
    one, many = StudyRunner(tmp_path / "one", work, 1), StudyRunner(tmp_path / "many", partial(die_once, work), 1)
    lines = []
    expected = one.run_all(work.runs(), report=None)
    records = many.run_all(work.runs(), 2, report=lines.append, scheduler="local")
    assert (tmp_path / "many/ABMIL/fold_0/killed").exists()
    assert len(lines) == len(records) == 4
    for run, record, other in zip(work.runs(), records, expected, strict=True):
        here, there = many.run_folder(run), one.run_folder(run)
        assert {**record, **{key: other[key] for key in TIMES}} == other
        for name in ("predictions.csv", "history.csv"):
            assert (here / name).read_bytes() == (there / name).read_bytes()
        weights = torch.load(there / "model.pt", weights_only=True)
        torch.testing.assert_close(torch.load(here / "model.pt", weights_only=True), weights, rtol=0, atol=0)


def test_a_study_trains_on_dask_workers_as_in_this_process(tmp_path):
    items, predictions = make_items(tmp_path), "runs/MeanMIL/fold_0/predictions.csv"
    assert make_study(items, tmp_path / "one").run((1, 2)) is None
    with cluster({"resources": {"GPU": 1}}) as address:
        assert make_study(items, tmp_path / "dask").run((1, 2), None, address, 1) is None
    assert (tmp_path / "dask" / predictions).read_bytes() == (tmp_path / "one" / predictions).read_bytes()
