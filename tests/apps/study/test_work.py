"""Tests of the work of one run of a study."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import (
    FoldPlan,
    RunsFailedError,
    Selection,
    StudyRunner,
    Task,
    TrainingSettings,
    parse_methods,
)
from monai_mil_ext.apps.study.outputs import with_bin_edges
from monai_mil_ext.apps.study.work import StudyWork, predict_bags
from monai_mil_ext.data import load_weights, read_bag, write_bag
from monai_mil_ext.metrics import instance_values
from tests.apps.study.cohort_bags import TASKS, make_items

FEW = TrainingSettings(epochs=2)


def make_work(items, methods="ABMIL", splits=None, **values):
    task = TASKS["classification"]
    splits = splits or FoldPlan(2).split(items, task)
    return StudyWork(items, splits, task, parse_methods(methods), FEW, values.get("selection", Selection()))


def test_predictions_of_validation_and_test_part(tmp_path):
    work = make_work(make_items(tmp_path))
    runner = StudyRunner(tmp_path / "runs", work)
    run = work.runs()[1]
    record = runner.run(run)
    rows = work.predictions(run, runner.run_folder(run), record)
    assert set(rows.fold) == {1}
    for part in ("val", "test"):
        assert sorted(rows.of_part(part).case_id) == sorted(work.splits.folds[1][part])
    assert set(rows.more) == {"entropy_ratio", "top_10_share", "stability"}
    assert np.isfinite(rows.of_part("val").more["stability"]).all()
    assert np.isnan(rows.of_part("test").more["stability"]).all()
    again = predict_bags(work.network(run, runner.run_folder(run), record), work.part(1, "test"), work.task)
    assert rows.of_part("test").output == pytest.approx(again.output)


def test_runs_depend_on_files_and_labels_of_their_training_only(tmp_path):
    items = make_items(tmp_path)
    work = make_work(items)
    before = work.runs()
    case = work.splits.folds[0]["test"][0]
    item = next(item for item in items if item["case_id"] == case)
    write_bag(item["image"], {"features": torch.zeros(12, 4)})
    after = make_work(items, splits=work.splits).runs()
    assert [a.settings == b.settings for a, b in zip(before, after, strict=True)] == [True, False]


@pytest.mark.parametrize(
    "changed",
    [
        lambda work: {"task": replace(work.task, class_names=("b", "a"))},
        lambda work: {"training": replace(work.training, seed=1)},
        lambda work: {"training": replace(work.training, epochs=3)},
        lambda work: {"selection": Selection({"learning_rate": [0.1, 0.01]})},
        lambda work: {"methods": [replace(work.methods[0], guidance=0.5)]},
        lambda work: {"items": [{**item, "label": 1 - item["label"]} for item in work.items]},
    ],
    ids=["task", "seed", "epochs", "grid", "term", "labels"],
)
def test_all_that_decides_a_training_repeats_it(changed, tmp_path):
    work = make_work(make_items(tmp_path))
    before, after = work.runs(), replace(work, **changed(work)).runs()
    assert [a.name for a in after] == [b.name for b in before]
    assert all(a.settings != b.settings for a, b in zip(after, before, strict=True))


def test_a_case_that_moves_to_another_part_repeats_the_training(tmp_path):
    work = make_work(make_items(tmp_path))
    fold = work.splits.folds[0]
    for part, other in (("val", "test"), ("train", "test"), ("val", "train")):
        moved = {**fold, part: fold[part][1:], other: [*fold[other], fold[part][0]]}
        splits = replace(work.splits, folds=[moved, *work.splits.folds[1:]])
        same = [a.settings == b.settings for a, b in zip(replace(work, splits=splits).runs(), work.runs(), strict=True)]
        assert same == [False, True]


def test_a_changed_test_part_is_predicted_again_without_training(tmp_path, monkeypatch):
    items = make_items(tmp_path)
    work = make_work(items)
    runner = StudyRunner(tmp_path / "runs", work)
    run = work.runs()[0]
    record = runner.run(run)
    first = work.predictions(run, runner.run_folder(run), record)
    case = work.splits.folds[0]["test"][0]
    item = next(item for item in items if item["case_id"] == case)
    write_bag(item["image"], {"features": torch.full((12, 4), 9.0)})
    second = work.predictions(run, runner.run_folder(run), record)
    changed = np.flatnonzero(np.any(first.output != second.output, axis=1))
    assert [second.case_id[i] for i in changed] == [case]


def test_an_open_bin_of_time_does_not_repeat_a_finished_run(tmp_path):
    items = make_items(tmp_path, "survival")
    task = with_bin_edges(TASKS["survival"], items)
    splits = FoldPlan(2).split(items, task)
    work = StudyWork(items, splits, task, parse_methods("MeanMIL"), FEW, Selection())
    runner, run = StudyRunner(tmp_path / "runs", work), work.runs()[0]
    assert runner.run(run) == runner.read(run)


def test_other_bins_of_the_study_repeat_the_predictions_alone(tmp_path):
    items = make_items(tmp_path, "survival")
    own, shared = Task("survival", bin_edges=(2.0, 5.0, math.inf)), Task("survival", bin_edges=(1.0, 4.0, math.inf))
    splits = FoldPlan(2).split(items, own)
    before, after = (
        StudyWork(items, splits, task, parse_methods("MeanMIL"), FEW, Selection(), [own, own]) for task in (own, shared)
    )
    runner, run = StudyRunner(tmp_path / "runs", before), before.runs()[0]
    record, folder = runner.run(run), runner.run_folder(run)
    assert run == after.runs()[0]
    first, second = (work.predictions(run, folder, record) for work in (before, after))
    assert (first.times.tolist(), second.times.tolist()) == ([2.0, 5.0], [1.0, 4.0])
    cumulative = -np.log(first.survival)
    expected = np.stack([cumulative[:, 0] / 2, cumulative[:, 0] + np.diff(cumulative, axis=1)[:, 0] * 2 / 3], axis=1)
    np.testing.assert_allclose(-np.log(second.survival), expected, rtol=1e-5)


def test_settings_are_chosen_on_the_validation_part(tmp_path):
    items = make_items(tmp_path)
    work = make_work(items, selection=Selection({"learning_rate": [1e-6, 0.05]}))
    record = StudyRunner(tmp_path / "runs", work).run(work.runs()[0])
    assert record["settings"] == {"learning_rate": 0.05}
    assert record["candidates"] == 3


def test_nothing_that_is_trained_or_chosen_depends_on_the_test_part(tmp_path):
    items = make_items(tmp_path)
    work = make_work(items, "MeanMIL", selection=Selection({"learning_rate": [0.01, 0.05]}))
    records, weights = [], []
    for name in ("before", "after"):
        runner, run = StudyRunner(tmp_path / name, work), work.runs()[0]
        records.append(
            {key: value for key, value in runner.run(run).items() if key in ("epoch", "val_loss", "settings")}
        )
        weights.append(load_weights(runner.run_folder(run) / "model.pt"))
        for item in work.part(0, "test"):
            write_bag(item["image"], {"features": torch.rand(12, 4)})
        test = set(work.splits.folds[0]["test"])
        flipped = [{**item, "label": 1 - item["label"]} if item["case_id"] in test else item for item in items]
        work = make_work(flipped, "MeanMIL", work.splits, selection=work.selection)
    assert records[0] == records[1]
    assert set(records[0]) == {"epoch", "val_loss", "settings"}
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_each_fold_has_a_seed_of_its_own(tmp_path, monkeypatch):
    seeds, work = [], make_work(make_items(tmp_path))

    def stop(*arguments):
        seeds.append(arguments[5].seed)
        raise InterruptedError("stopped")

    monkeypatch.setattr("monai_mil_ext.apps.study.work.train_bag_network", stop)
    for run in work.runs():
        with pytest.raises(InterruptedError, match="stopped"):
            work(run, tmp_path)
    assert seeds == [0, 1]


def test_instance_labels_of_a_bag_give_the_values_of_localization(tmp_path):
    path, labels = tmp_path / "bag.h5", torch.tensor([1, 0, 0, 1, 0])
    write_bag(path, {"features": torch.rand(5, 4), "instance_label": labels})
    item = {"case_id": "a", "patient": "a", "image": str(path), "label": 1}
    net = parse_methods("ABMIL")[0].build(4, 2)
    rows = predict_bags(net, [item], TASKS["classification"])
    with torch.no_grad():
        attention = net.eval().forward_bag(read_bag(path)["features"][None], None).attention
    expected = instance_values(attention[0, :, 0], labels)
    assert {name: rows.more[name][0] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("instances", "cores", "memory", "cuda", "jobs"),
    [
        (2000, 4, 2**40, False, 4),
        (2000, 64, 2**40, False, 10),  # no more than runs
        (2000, 4, 5 * 2**30, False, 2),
        (2000, 4, 2**20, False, 1),
        (20, 4, 2**40, False, 1),  # few features
        (2000, 4, 2**40, True, 1),
    ],
)
def test_helpful_jobs_fit_cores_memory_and_runs(instances, cores, memory, cuda, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("monai_mil_ext.apps.study.work.available_memory", lambda: memory)
    monkeypatch.setattr("monai_mil_ext.apps.study.work._in_features", lambda item: 1024)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    items = [{"case_id": f"c{i}", "image": f"{i}.h5", "num_instances": instances} for i in range(40)]
    work = StudyWork(items, None, TASKS["classification"], [], FEW, Selection())
    assert work.helpful_jobs(num_runs=10) == jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_texts_of_a_failed_run_have_no_names_of_files(jobs, tmp_path):
    folder = tmp_path / "Doe_Jane"
    folder.mkdir()
    items = make_items(folder)
    work = make_work(items)
    for item in items:
        Path(item["image"]).write_bytes(b"no bag")
    runner = StudyRunner(tmp_path / "runs", work, redact=work.without_names)
    with pytest.raises(RunsFailedError, match="2 of 2 runs failed") as failure:
        runner.run_all(work.runs(), jobs, report=None)
    text = (tmp_path / "runs" / "ABMIL" / "fold_0" / "error.txt").read_text() + str(failure.value)
    assert 'File "monai_mil_ext/apps/study/work.py", line' in text
    assert str(tmp_path) not in text
    assert sys.prefix not in text
    for name in ("Doe_Jane", "bag_0", "bag_1"):
        assert name not in text


def test_names_of_folders_of_patients_are_removed():
    items = [{"case_id": name, "image": f"/data/{name}/1.h5"} for name in ("Doe_Jane", "Müller_Max")]
    work = StudyWork(items, None, TASKS["classification"], [], FEW, Selection())
    for text in ("can't read Doe_Jane/1.h5", "bad Doe_Jane", "can't read 'M\\xfcller_Max'"):
        assert "Doe" not in work.without_names(text)
        assert "ller" not in work.without_names(text)


def test_attention_is_compared_with_labels_that_are_files_of_their_own(tmp_path):
    items = make_items(tmp_path)
    for item in items:
        np.save(tmp_path / f"{item['case_id']}_labels.npy", np.arange(12) < 4)
        item["instance_label"] = str(tmp_path / f"{item['case_id']}_labels.npy")
    work = make_work(items)
    net = work.methods[0].build(4, 2)
    rows = predict_bags(net, items[:2], work.task)
    bag = read_bag(items[0]["image"])["features"][None]
    attention = net.eval().forward_bag(bag, None).attention[0, :, 0]
    expected = instance_values(attention, torch.arange(12) < 4)["instance_auroc"]
    assert rows.more["instance_auroc"][0] == pytest.approx(expected)
