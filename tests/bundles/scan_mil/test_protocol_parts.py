"""Tests of the parts of the training protocols: choice of the epoch, penalty, whole scans."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine

from monai_mil_ext.losses import MultiLabelLoss
from tests.workflows import causes

EPOCHS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6)


def history(values):
    return [{"epoch": i + 1, "train": t, "validation": v} for i, (t, v) in enumerate(values)]


@given(EPOCHS)
def test_chosen_epoch_is_the_best_eligible_epoch(values):
    from scripts.epoch_choice import chosen_epoch

    free, bound = (chosen_epoch(history(values), below_train=rule) for rule in (False, True))
    assert free["validation"] == max(v for _, v in values)
    counted = [v for t, v in values if t > v]
    assert (bound is None) == (not counted)
    if bound:
        assert bound["train"] > bound["validation"] == max(counted)


def test_chosen_epoch_is_the_first_of_equals_and_never_nan():
    from scripts.epoch_choice import chosen_epoch

    assert chosen_epoch(history([(0.9, 0.7), (0.9, 0.7)]), below_train=True)["epoch"] == 1
    assert chosen_epoch(history([(0.9, math.nan), (0.9, 0.6)]), below_train=False)["epoch"] == 2
    assert chosen_epoch(history([(0.7, 0.7)]), below_train=True) is None


def run_epochs(choice, validator, values):
    """A trainer whose epochs have ``values`` (train, validation) of ``bag_auroc``; how many it did."""
    from ignite.engine import Events

    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure(engine):
        engine.state.metrics["bag_auroc"], validator.state.metrics["bag_auroc"] = values[engine.state.epoch - 1]
        choice.network.weight.data.fill_(engine.state.epoch)

    choice.attach(trainer)
    return trainer.run([0], max_epochs=len(values)).epoch


def make_choice(folder, **options):
    from scripts.epoch_choice import EpochChoice

    validator = Engine(lambda *_: None)
    return EpochChoice(validator, torch.nn.Linear(1, 1, bias=False), str(folder), **options), validator


def test_epoch_choice_keeps_the_weights_of_the_chosen_epoch(tmp_path):
    values = [(0.5, 0.9), (0.8, 0.6), (0.9, 0.7), (0.95, 0.65)]
    run_epochs(*make_choice(tmp_path, below_train=True), values)
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == 3
    record = json.loads((tmp_path / "epochs.json").read_text())
    assert record["chosen"] == {"epoch": 3, "train": 0.9, "validation": 0.7}
    assert [entry["validation"] for entry in record["epochs"]] == [v for _, v in values]
    run_epochs(*make_choice(tmp_path / "free"), values)
    assert torch.load(tmp_path / "free" / "model.pt", weights_only=True)["weight"].item() == 1


def test_epoch_choice_keeps_nothing_without_an_eligible_epoch(tmp_path):
    run_epochs(*make_choice(tmp_path, below_train=True), [(0.5, 0.9), (0.5, 0.5)])
    assert not (tmp_path / "model.pt").exists()
    assert json.loads((tmp_path / "epochs.json").read_text())["chosen"] is None


@pytest.mark.parametrize(("mode", "stopped"), [("max", 4), ("min", 5)])
def test_epoch_choice_stops_early_after_its_patience(tmp_path, mode, stopped):
    values = [(0.9, v) for v in (0.5, 0.6, 0.4, 0.5, 0.5, 0.5, 0.5)]
    assert run_epochs(*make_choice(tmp_path, patience=2, stop_mode=mode), values) == stopped


def test_epoch_choice_resumes_from_its_state(tmp_path):
    values = [(0.9, v) for v in (0.5, 0.6, 0.4)]
    first, validator = make_choice(tmp_path, patience=2)
    run_epochs(first, validator, values)
    second, _ = make_choice(tmp_path, patience=2)
    second.load_state_dict(first.state_dict())
    assert second.history == first.history
    assert second._early_stop.counter == first._early_stop.counter == 1


def test_epoch_choice_names_an_unknown_metric(tmp_path):
    choice, validator = make_choice(tmp_path, metric="instance_auroc")
    with pytest.raises(ValueError, match=r"`metric` must be one of \['bag_auroc'\], got 'instance_auroc'"):
        run_epochs(choice, validator, [(0.5, 0.5)])


def test_l1_penalized_loss_is_half_the_norm_with_half_the_sign_as_gradient():
    from scripts.l1_loss import L1PenalizedLoss

    net = torch.nn.Linear(2, 1)
    net.weight.data, net.bias.data = torch.tensor([[2.0, -3.0]]), torch.tensor([0.0])
    logits, label = torch.zeros(4, 1), torch.tensor([0, 1, 1, 0])
    loss = L1PenalizedLoss(MultiLabelLoss(), net, 0.1)(logits, label)
    assert loss.item() == pytest.approx(math.log(2) + 0.1 / 2 * 5)
    loss.backward()
    torch.testing.assert_close(net.weight.grad, torch.tensor([[0.05, -0.05]]))
    assert net.bias.grad.item() == 0
    assert list(L1PenalizedLoss(MultiLabelLoss(), net, 0.1).parameters()) == []
    with pytest.raises(ValueError, match="`weight` must be finite and not negative, got -1"):
        L1PenalizedLoss(MultiLabelLoss(), net, -1)


def test_whole_scans_keep_no_slice_labels():
    from scripts.whole_scans import whole_scans

    scan = {"case_id": "a", "patient": "p", "image": "a.h5", "label": 1, "reference": "mask.nii", "grade": 3}
    assert whole_scans([scan]) == [{"case_id": "a", "patient": "p", "image": "a.h5", "label": 1}]
    del scan["label"]
    with pytest.raises(ValueError, match=r"`label` must be 0 or 1 for every scan of the cohort, got .* for \['a'\]"):
        whole_scans([scan])


def test_protocol_trains_on_a_table_of_scans_with_names_of_classes(scans, start, tmp_path):
    from .ct_series import OPTIONS

    rows = [
        "case_id,patient,image,label",
        *(f"{c},{i},{c},{('benign', 'malignant')[i % 2]}" for i, c in enumerate("abcd")),
    ]
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    places = {"dataset_dir": str(tmp_path), "table": str(tmp_path / "scans.csv"), "root": str(scans)}
    options = {**OPTIONS, **places, "output_dir": str(tmp_path / "e"), "in_features": 16, "spatial_size": 8}
    cohort = start("train", "protocol", **options, class_names=["benign", "malignant"]).parser.get_parsed_content(
        "cohort"
    )
    assert [(item["patient"], item["label"]) for item in cohort] == [("0", 0), ("1", 1), ("2", 0), ("3", 1)]
    with pytest.raises(RuntimeError, match="Failed to") as error:
        start("train", "protocol", **options).parser.get_parsed_content("cohort")
    message = "labels are benign, malignant: give --class_names \"['benign','malignant']\""
    assert causes(error.value).count(message) == 1
