"""Tests of the training of one network of a study."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import TrainingSettings, parse_methods, train_bag_network
from monai_mil_ext.apps.study import training as module
from monai_mil_ext.apps.study.outputs import main_metric, with_bin_edges
from monai_mil_ext.apps.study.training import apply_settings, available_memory
from monai_mil_ext.apps.study.work import predict_bags
from monai_mil_ext.data import join_bag_files, read_bag, write_bag
from monai_mil_ext.networks.nets import SourceNet
from tests.apps.study.cohort_bags import TASKS, make_items

SETTINGS = TrainingSettings(epochs=15, learning_rate=0.01)


def train(items, kind="classification", method="ABMIL", settings=SETTINGS, **values):
    task = with_bin_edges(TASKS[kind], items)
    return train_bag_network(parse_methods(method)[0], values, items[:24], items[24:], task, settings), task


@pytest.mark.parametrize("kind", TASKS)
def test_each_task_learns_an_easy_label(kind, tmp_path):
    items = make_items(tmp_path, kind)
    fold, task = train(items, kind)
    rows = predict_bags(fold.network, items[24:], task)
    (value,) = main_metric(task, rows.truth, rows.output).values()
    assert value > 0.8, value


@pytest.mark.parametrize(
    "method", ["QGMIL", "ASMIL", "ACMIL", "DTFDMIL", "ABMIL+NG+KG+AEM", "ABMIL+MHIM", "ABMIL+anchor", "MeanMIL"]
)
def test_each_kind_of_method_trains(method, tmp_path):
    fold, _ = train(make_items(tmp_path), method=method, settings=TrainingSettings(epochs=2))
    assert [row["epoch"] for row in fold.history] == [1, 2]


@pytest.mark.parametrize("kind", ["several classes", "multilabel", "ordinal", "regression", "survival", "cox"])
@pytest.mark.parametrize("method", ["ACMIL", "DSMIL", "CLAM-MB"])
def test_terms_on_logits_fit_each_task(method, kind, tmp_path):
    fold, _ = train(make_items(tmp_path, kind), kind, method, TrainingSettings(epochs=1))
    (row,) = fold.history
    assert np.isfinite([row["train_loss"], row["val_loss"]]).all()


@pytest.mark.parametrize("method", ["DSMIL", "CLAM", "CLAM-MB", "AdditiveMIL", "RecurrentMIL"])
def test_published_methods_learn_an_easy_label(method, tmp_path):
    items = make_items(tmp_path)
    fold, task = train(items, method=method)
    rows = predict_bags(fold.network, items[24:], task)
    assert main_metric(task, rows.truth, rows.output)["auroc"] > 0.9
    assert fold.notes == []


@pytest.mark.parametrize(
    ("method", "kind"),
    [("ABMIL+MHIM+anchor", "classification"), ("CLAM", "classification"), ("ACMIL", "ordinal"), ("DSMIL", "ordinal")],
)
def test_every_term_finds_its_layer_in_a_network_of_several_sources(method, kind, tmp_path):
    items = make_items(tmp_path / "a", kind)
    for item in items:
        features = read_bag(item["image"])["features"]
        write_bag(tmp_path / "b" / Path(item["image"]).name, {"features": 100 + 0.01 * features[:5, :3]})
    joined = join_bag_files({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "joined")
    items = [{**item, "image": str(file)} for item, file in zip(items, joined.files, strict=True)]
    fold, task = train(items, kind, method, TrainingSettings(epochs=1, batch_size=4))
    (source,) = [part for part in fold.network.modules() if isinstance(part, SourceNet)]
    assert source._constructor_arguments["sources"] == {"a": 4, "b": 3}
    assert torch.equal(fold.network.scale, torch.ones(5))  # nor is the index of the source standardized
    assert np.isfinite(predict_bags(fold.network, items[24:], task).output).all()


def test_weights_of_another_training_get_features_as_they_are(tmp_path):
    shapes = {"patch_embed.0": (8, 4), "global_attn.attention_c": (1, 5), "classifier": (7, 8)}
    shapes |= {f"global_attn.attention_{part}.0": (5, 8) for part in "ab"}
    weights = {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    torch.save(weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}, tmp_path / "w.bin")
    target = "monai_mil_ext.networks.nets.load_pretrained_abmil"
    method = {"target": target, "name": "FEATHER", "path": str(tmp_path / "w.bin")}
    fold, _ = train(make_items(tmp_path), method=method, settings=TrainingSettings(epochs=1, learning_rate=1e-9))
    assert torch.equal(fold.network.scale, torch.ones(4))
    torch.testing.assert_close(fold.network.net.embed[0].weight.data, torch.ones(8, 4))
    assert fold.network.net.classify.out_features == 2


def test_slides_of_one_vector_each_train(tmp_path):
    """The vector of a slide encoder is a bag of one instance, also as TRIDENT stores it: (F,)."""
    items = make_items(tmp_path)
    for i, item in enumerate(items):
        vector = read_bag(item["image"])["features"].mean(0)
        with h5py.File(item["image"], "w") as file:
            file["features"] = vector if i % 2 else vector[None]
            file["features"].attrs["encoder"] = "titan"
    fold, task = train([{**item, "num_instances": 1} for item in items])
    rows = predict_bags(fold.network, items[24:], task)
    assert main_metric(task, rows.truth, rows.output)["auroc"] > 0.9


def test_instances_and_values_are_standardized_by_the_training_part(tmp_path):
    items = make_items(tmp_path, "regression")
    for item in items[24:]:
        item["label"] += 1000
        write_bag(item["image"], {"features": torch.full((12, 4), 50.0)})
    fold, task = train(items, "regression", "MeanMIL", TrainingSettings(epochs=1))
    features = torch.cat([read_bag(item["image"])["features"] for item in items[:24]])
    torch.testing.assert_close(fold.network.mean, features.mean(0), rtol=1e-4, atol=1e-4)
    truth = task.truth(items[:24])
    assert fold.network.output_mean.item() == pytest.approx(truth.mean())
    assert fold.network.output_scale.item() == pytest.approx(truth.std())


def test_weights_of_terms_change_the_training(tmp_path):
    items, few = make_items(tmp_path), TrainingSettings(epochs=1)
    for method, weight in (("DSMIL", "branches"), ("CLAM", "instances"), ("ACMIL", "branches")):
        off, on = [train(items, method=method, settings=few, **{weight: w})[0] for w in (0, 1)]
        assert on.history[0]["train_loss"] > off.history[0]["train_loss"]


def test_a_term_that_a_task_lacks_is_noted(tmp_path):
    fold, _ = train(make_items(tmp_path, "regression"), "regression", "CLAM", TrainingSettings(epochs=1))
    assert fold.notes == ["CLAM is trained without its instance loss, which needs classes that exclude one another."]


def test_risk_sets_of_large_bags_have_several_bags(tmp_path):
    items = make_items(tmp_path, "cox")
    few = TrainingSettings(epochs=1, batch_instances=12)  # one bag
    fold, _ = train(items, "cox", settings=few)
    assert fold.history[0]["train_loss"] > 0.5  # a bag alone has no loss


def test_a_network_without_weights_is_not_trained(tmp_path):
    fold, _ = train(make_items(tmp_path), method="CenterPrior")
    assert fold.history == []


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path):
    items = make_items(tmp_path, noise=True)
    fold, task = train(items)
    losses = [row["val_loss"] for row in fold.history]
    assert fold.loss == min(losses)
    assert fold.epoch == 1 + len(losses) - 1 - int(np.argmin(losses[::-1]))
    rows = predict_bags(fold.network, items[24:], task)
    probability = rows.output[np.arange(12), rows.truth]
    assert -np.log(probability).mean() == pytest.approx(fold.loss, abs=1e-5)


def test_training_ends_early(tmp_path):
    items = make_items(tmp_path, noise=True)
    fold, _ = train(items, settings=TrainingSettings(epochs=200, patience=2, learning_rate=0.05))
    assert len(fold.history) == fold.epoch + 2 < 200


def test_engines_log_as_before_after_a_training(tmp_path):
    train(make_items(tmp_path), settings=TrainingSettings(epochs=1))
    for kind in ("SupervisedTrainer", "SupervisedEvaluator"):
        assert logging.getLogger(f"ignite.engine.engine.{kind}").level == logging.NOTSET, kind


def test_equal_seeds_give_equal_weights(tmp_path):
    items, few = make_items(tmp_path), TrainingSettings(epochs=2, seed=3)
    first, second = (train(items, method="QGMIL", settings=few)[0] for _ in range(2))
    assert all(map(torch.equal, first.network.state_dict().values(), second.network.state_dict().values()))


def test_another_seed_gives_other_weights_and_another_order(tmp_path, monkeypatch):
    items, orders = make_items(tmp_path), []
    sampler = module.BagBatchSampler
    monkeypatch.setattr(
        module, "BagBatchSampler", lambda *a, **k: orders.append((k["shuffle"], k["seed"])) or sampler(*a, **k)
    )
    weights = [
        train(items, settings=TrainingSettings(epochs=1, learning_rate=1e-9, seed=seed))[0].network.state_dict()
        for seed in (0, 1)
    ]
    assert not all(map(torch.allclose, weights[0].values(), weights[1].values()))  # hardly trained: as at the start
    assert [order for order in orders if order[0]] == [(True, 0), (True, 1)]


def test_large_features_are_read_in_samples(tmp_path, monkeypatch):
    items = make_items(tmp_path)
    read = []
    load = module.RandLoadBagd.__call__
    monkeypatch.setattr(module.RandLoadBagd, "__call__", lambda self, d: read.append(load(self, d)) or read[-1])
    monkeypatch.setattr(module, "available_memory", lambda: 0)
    train(items, settings=TrainingSettings(epochs=2, max_instances=5))
    assert {len(bag["image"]) for bag in read} == {5}
    assert len(read) == 48


def test_the_report_gets_each_epoch_and_may_end_the_training(tmp_path):
    losses = []

    def report(epoch, loss):
        losses.append((epoch, loss))
        if epoch == 2:
            raise InterruptedError("enough")

    items = make_items(tmp_path)
    with pytest.raises(InterruptedError, match="enough"):
        train_bag_network(
            parse_methods("MeanMIL")[0], {}, items[:24], items[24:], TASKS["classification"], SETTINGS, report
        )
    assert [epoch for epoch, _ in losses] == [1, 2]


def test_settings_of_network_loss_and_training():
    method, training = apply_settings(
        parse_methods("TransMIL")[0], TrainingSettings(), {"hidden_size": 64, "guidance": 0.5, "epochs": 3}
    )
    assert (method.network["hidden_size"], method.guidance) == (64, 0.5)
    assert (training.epochs, training.learning_rate) == (3, 0.0002)
    with pytest.raises(ValueError, match=r"settings of ABMIL must be of .*, got \['widht'\]"):
        apply_settings(parse_methods("ABMIL")[0], TrainingSettings(), {"widht": 3})


def test_free_memory_is_known():
    assert available_memory() > 2**20


def with_positions(items, folder, positions):
    """Return the items with copies of their bags that have positions in mm."""
    folder.mkdir()
    for item in items:
        features = read_bag(item["image"])["features"]
        path = folder / f"{item['case_id']}.h5"
        write_bag(path, {"features": features, **({} if positions is None else {"position": positions})})
    return [{**item, "image": str(folder / f"{item['case_id']}.h5")} for item in items]


def test_normal_guidance_takes_positions_in_mm(tmp_path):
    items, few = make_items(tmp_path), TrainingSettings(epochs=2)
    regular, irregular = 5.0 * torch.arange(12), torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 60, 61, 62])
    places = {"none": None, "regular": regular, "irregular": irregular, "points": torch.rand(12, 3)}
    folds = {name: train(with_positions(items, tmp_path / name, p), method="ABMIL+NG", settings=few)[0]
             for name, p in places.items()}  # fmt: skip
    losses = {name: [row["train_loss"] for row in fold.history] for name, fold in folds.items()}
    assert losses["regular"] == pytest.approx(losses["none"], rel=1e-4)
    assert losses["points"] == losses["none"]
    assert abs(losses["irregular"][-1] - losses["none"][-1]) > 0.01
    assert [len(fold.notes) for fold in folds.values()] == [0, 1, 1, 0]


@pytest.mark.parametrize("memory", [2**40, 0])
def test_positions_are_those_of_the_sampled_instances(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: memory)
    seen = []

    def forward(loss, attention, mask=None, positions=None):
        seen.extend(row[valid] for row, valid in zip(positions, mask, strict=True))
        return attention.sum() * 0

    monkeypatch.setattr(module.NormalGuidanceLoss, "forward", forward)
    irregular = torch.arange(12, dtype=torch.float64) ** 2
    items = with_positions(make_items(tmp_path), tmp_path / "p", irregular)
    train(items, method="ABMIL+NG", settings=TrainingSettings(epochs=1, max_instances=5))
    assert {len(row) for row in seen} == {5}
    assert all((row.diff() > 0).all() and set(row.tolist()) <= set(irregular.tolist()) for row in seen)
    assert len({tuple(row.tolist()) for row in seen}) > 1
