"""Tests of the training of one network of a study."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import TrainingSettings, parse_methods, train_bag_network
from monai_mil_ext.apps.study.outputs import main_metric
from monai_mil_ext.apps.study.training import fold_bags
from monai_mil_ext.apps.study.work import predict_bags
from monai_mil_ext.data import join_bag_files, read_bag, write_bag
from monai_mil_ext.networks.nets import SourceNet
from tests.apps.study.cohort_bags import TASKS, make_items

from .made_training import SETTINGS, train


@pytest.mark.parametrize("kind", TASKS)
def test_each_task_learns_an_easy_label(kind, tmp_path):
    items = make_items(tmp_path, kind)
    fold, task = train(items, kind)
    rows = predict_bags(fold.network, items[24:], task)
    (value,) = main_metric(task, rows.truth, rows.output).values()
    assert value > 0.8, value


@pytest.mark.parametrize(
    "method", ["QGMIL", "ASMIL", "ACMIL", "DTFDMIL", "ABMIL+NG+KG+AEM", "QGMIL+MHIM", "ABMIL+anchor", "MeanMIL"]
)
def test_each_kind_of_method_trains(method, tmp_path):
    fold, _ = train(make_items(tmp_path), method=method, settings=TrainingSettings(epochs=2))
    assert [row["epoch"] for row in fold.history] == [1, 2]


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
    target = "monai_mil_ext.apps.bundle.load_pretrained_abmil"
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


def test_a_network_without_weights_is_not_trained(tmp_path):
    fold, _ = train(make_items(tmp_path), method="CenterPrior")
    assert fold.history == []


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
    sampler = fold_bags.BagBatchSampler
    monkeypatch.setattr(
        fold_bags, "BagBatchSampler", lambda *a, **k: orders.append((k["shuffle"], k["seed"])) or sampler(*a, **k)
    )
    weights = [
        train(items, settings=TrainingSettings(epochs=1, learning_rate=1e-9, seed=seed))[0].network.state_dict()
        for seed in (0, 1)
    ]
    assert not all(map(torch.allclose, weights[0].values(), weights[1].values()))  # hardly trained: as at the start
    assert [order for order in orders if order[0]] == [(True, 0), (True, 1)]


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


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path):
    items = make_items(tmp_path, noise=True)
    fold, task = train(items)
    losses = [row["val_loss"] for row in fold.history]
    assert fold.loss == min(losses)
    assert fold.epoch == 1 + len(losses) - 1 - int(np.argmin(losses[::-1]))
    rows = predict_bags(fold.network, items[24:], task)
    probability = rows.output[np.arange(12), rows.truth]
    assert -np.log(probability).mean() == pytest.approx(fold.loss, abs=1e-5)


def test_stability_is_the_mean_change_of_the_attention_of_each_validation_case(tmp_path):
    items = make_items(tmp_path)
    fold, _ = train(items, settings=TrainingSettings(epochs=4, learning_rate=0.01))
    assert set(fold.stability) == {item["case_id"] for item in items[24:]}
    changes = [row["attention_jsd"] for row in fold.history]
    assert np.isnan(changes[0])
    assert np.mean(list(fold.stability.values())) == pytest.approx(np.mean(changes[1:]))
    assert 0 < min(fold.stability.values()) < max(fold.stability.values()) < np.log(2)


@pytest.mark.parametrize(("method", "epochs"), [("MeanMIL", 3), ("ABMIL", 1)])
def test_without_attention_or_a_second_epoch_there_is_no_stability(method, epochs, tmp_path):
    few = TrainingSettings(epochs=epochs)
    stability = train(make_items(tmp_path), method=method, settings=few)[0].stability
    assert set(stability.values()) <= ({0.0} if method == "MeanMIL" else set())
