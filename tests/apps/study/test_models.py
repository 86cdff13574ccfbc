"""Tests of the models of a study: written, read again, and refused."""

import json
import math

import pytest
import torch

from monai_mil_ext.apps.bundle import TrainedModel
from monai_mil_ext.apps.study import Task, read_study_model, write_study_model
from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.networks import nets
from monai_mil_ext.networks.nets.bag_ensemble import BagEnsemble
from monai_mil_ext.utils import logits_to_probabilities
from tests.bundles.study_models import TASKS, average, fold_networks, write_models

F = 6
every_task = pytest.mark.parametrize("name", TASKS)


@every_task
def test_a_study_model_averages_the_networks_of_its_folds(tmp_path, name):
    networks, x = write_models(tmp_path, name, F), torch.randn(5, F)
    model = read_study_model(tmp_path)
    assert isinstance(model.network, BagEnsemble)
    assert model.task == TASKS[name]
    assert not model.network.training
    with torch.no_grad():
        output = logits_to_probabilities(model.network(x[None]), model.task.kind)[0]
    assert output.tolist() == pytest.approx(average(name, networks, x), abs=1e-6)


@every_task
def test_a_study_model_of_one_network_is_that_network(tmp_path, name):
    net, x = fold_networks(name, F)[0], torch.randn(2, 5, F)
    write_study_model(tmp_path, [net], TASKS[name])
    again = read_study_model(tmp_path).network
    assert type(again) is nets.StandardizedNet
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)


def test_a_study_model_is_that_of_a_bundle(tmp_path):
    cohort = {"cases": 4, "patients": 3}
    sources = [InstanceSource(encoder="uni_v1", width=F)]
    write_models(tmp_path, "binary", F, threshold=0.3, cohort=cohort, sources=sources, level="patient")
    trained = TrainedModel(tmp_path)
    point = {"name": "study", "class_name": "malignant", "threshold": 0.3, "method": "Youden's index"}
    assert trained.identity()["operating_points"] == [point]
    assert read_study_model(tmp_path).threshold == 0.3
    assert (trained.source("encoder"), trained.task("level"), trained.task("num_classes")) == ("uni_v1", "patient", 2)
    assert trained.record.cohort == cohort
    trained.check_network(trained.network(torch.nn.Linear(1, 1)))
    with pytest.raises(ValueError, match="`network_def` must be the network that was trained"):
        trained.check_network(nets.BagEnsemble([nets.ABMIL(F, 2, hidden_size=4, num_heads=2)] * 2))


def test_a_study_model_states_the_bins_of_its_survival(tmp_path):
    write_models(tmp_path, "survival", F)
    values = json.loads((tmp_path / "model.json").read_text())
    assert values["task"]["parameters"] == {"bin_edges": [6.0, 12.5, None]}
    assert TrainedModel(tmp_path).identity()["bin_edges"] == [6.0, 12.5, None]
    assert read_study_model(tmp_path).task.bin_edges == (6.0, 12.5, math.inf)


@every_task
def test_a_study_model_has_no_class_names_without_classes(tmp_path, name):
    write_models(tmp_path, name, F)
    assert ModelRecord.read(tmp_path).class_names == (TASKS[name].class_names or None)


def test_write_study_model_refuses_what_it_cannot_write(tmp_path):
    net, binary = nets.ABMIL(F, 2), TASKS["binary"]
    with pytest.raises(ValueError, match="`networks` must be one or more, got none"):
        write_study_model(tmp_path, [], binary)
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\], got 1.5"):
        write_study_model(tmp_path, [net], binary, threshold=1.5)
    with pytest.raises(ValueError, match=r"`threshold` must be None for .* without two classes, got 0.5"):
        write_study_model(tmp_path, [net], Task("cox"), threshold=0.5)
    assert list(tmp_path.iterdir()) == []


def test_read_study_model_refuses_other_weights_and_other_networks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be the record of a model that exists, got 'absent'"):
        read_study_model(tmp_path / "absent")
    write_models(tmp_path, "binary", F)
    torch.save(nets.ABMIL(F, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"`path` must have the weights that model\.json describes"):
        read_study_model(tmp_path)
