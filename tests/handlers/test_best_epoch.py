"""Tests of BestEpochSaver: weights of the best epoch, also in a resumed run."""

import multiprocessing
import resource

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_mil_ext.handlers import BagMetricHandler, BestEpochSaver
from monai_mil_ext.metrics import BagClassificationMetric

LABELS = (0, 1, 0, 1)


class GivenProbabilities(nn.Module):
    """Network that returns given probabilities of bags."""

    def __init__(self):
        super().__init__()
        self.second = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        p = self.second.detach()[x.long()]
        return torch.stack([1 - p, p], dim=1)


def make(folder, labels=LABELS):
    net = GivenProbabilities()
    data = [{"image": torch.tensor(i), "label": label} for i, label in enumerate(labels)]
    metric = {"bag_auroc": BagMetricHandler(BagClassificationMetric("auroc"))}
    saver = BestEpochSaver(str(folder), net)
    evaluator = SupervisedEvaluator("cpu", DataLoader(data), net, key_val_metric=metric, val_handlers=[saver])

    def validate(epoch, *second):
        with torch.no_grad():
            net.second.copy_(torch.tensor(second))
        evaluator.run(epoch)

    return saver, validate


def kept(folder):
    return torch.load(folder / "model.pt", weights_only=True)["second"].tolist()


HALF, WHOLE, NONE = (0.1, 0.2, 0.3, 0.4), (0.1, 0.6, 0.2, 0.7), (0.9, 0.1, 0.8, 0.2)  # AUROC 0.75, 1, 0


def test_best_epoch_saver_keeps_the_first_of_equal_epochs(tmp_path):
    saver, validate = make(tmp_path)
    for epoch, probabilities in enumerate((HALF, WHOLE, NONE, [p + 0.1 for p in WHOLE]), 1):
        validate(epoch, *probabilities)
    assert kept(tmp_path) == pytest.approx(WHOLE)
    assert saver.state_dict() == {"metric": 1.0, "epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_best_epoch_saver_keeps_the_best_epoch_of_a_resumed_run(tmp_path):
    saver, validate = make(tmp_path)
    validate(1, *WHOLE)
    state = saver.state_dict()
    saver, validate = make(tmp_path)
    saver.load_state_dict(state)
    validate(2, *HALF)
    assert kept(tmp_path) == pytest.approx(WHOLE)
    saver, validate = make(tmp_path)
    saver.load_state_dict({"metric": 0.5, "epoch": 1})
    validate(2, *HALF)
    assert kept(tmp_path) == pytest.approx(HALF)
    assert saver.state_dict() == {"metric": 0.75, "epoch": 2}


def test_best_epoch_saver_returns_a_state_loaded_before_it_is_attached():
    saver = BestEpochSaver("models", nn.Linear(1, 1))
    saver.load_state_dict({"metric": 0.5, "epoch": 3})
    assert saver.state_dict() == {"metric": 0.5, "epoch": 3}


def validate_on_a_full_disk(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(OSError, match=r"must lie on a disk with room for it, got File too large for 'model\.pt'$"):
        make(folder)[1](1, *HALF)
    assert list(folder.iterdir()) == []


def test_best_epoch_saver_names_a_full_disk_and_leaves_no_partial_file(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=validate_on_a_full_disk, args=[tmp_path])
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_best_epoch_saver_refuses_nan(tmp_path):
    _, validate = make(tmp_path, labels=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="`key_metric` must be a number to choose an epoch by, got NaN of bag_auroc"):
        validate(1, *HALF)
    assert list(tmp_path.iterdir()) == []
