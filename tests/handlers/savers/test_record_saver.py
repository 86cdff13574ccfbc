"""Tests of the saver of a model's record."""

import pytest
import torch
from ignite.engine import Engine, Events

from monai_mil_ext.data import InstanceSource, ModelRecord, file_sha256
from monai_mil_ext.handlers import ModelRecordSaver


def train(folder, epochs, **options):
    engine = Engine(lambda engine, batch: None)

    def save(engine):
        if engine.state.epoch != 2:
            torch.save({"w": torch.full((1,), float(engine.state.epoch))}, folder / "model.pt")

    engine.add_event_handler(Events.EPOCH_COMPLETED, save)
    saver = ModelRecordSaver(ModelRecord("m"), folder, **options)
    saver.attach(engine)
    seen = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: seen.append((folder / "model.json").stat().st_mtime_ns)
    )
    engine.run([0], max_epochs=epochs)
    return seen


def test_the_record_has_the_hash_of_the_last_weights_and_is_written_when_they_change(tmp_path):
    times = train(tmp_path, 3)
    assert times[0] == times[1] < times[2]
    assert ModelRecord.read(tmp_path).weights == ({"file": "model.pt", "sha256": file_sha256(tmp_path / "model.pt")},)


def test_the_record_takes_the_calibration_of_the_moment(tmp_path):
    train(tmp_path, 1, calibration=lambda: {"temperature": 1.5})
    assert ModelRecord.read(tmp_path).calibration == {"temperature": 1.5}


def test_without_weights_there_is_no_record(tmp_path):
    ModelRecordSaver(ModelRecord("m"), tmp_path).write()
    assert not (tmp_path / "model.json").exists()


def test_a_state_of_another_network_is_refused():
    saver = ModelRecordSaver(ModelRecord("m", network={"options": {"num_heads": 2}}), "models")
    saver.load_state_dict(saver.state_dict())
    other = ModelRecordSaver(ModelRecord("m", network={"options": {"num_heads": 4}}), "models")
    with pytest.raises(ValueError, match="whose num_heads is 2, got 4"):
        other.load_state_dict(saver.state_dict())


def test_a_state_of_classes_in_another_order_is_refused():
    def saver(*names):
        return ModelRecordSaver(ModelRecord("m", task={"class_names": names or None}), "models")

    state = saver("normal", "tumor").state_dict()
    saver("normal", "tumor").load_state_dict(state)
    saver().load_state_dict(state)
    with pytest.raises(ValueError, match=r"`class_names` must be \['normal', 'tumor'\], as before, got \['tumor', "):
        saver("tumor", "normal").load_state_dict(state)


def test_a_state_of_other_instances_is_refused():
    def saver(window):
        return ModelRecordSaver(ModelRecord("m", sources=(InstanceSource(window=window),)), "models")

    state = saver((-1000, 400)).state_dict()
    saver((-1000, 400)).load_state_dict(state)
    with pytest.raises(ValueError, match="must go on as it began: trained on window -1000 to 400, got window 0 to 80"):
        saver((0, 80)).load_state_dict(state)
