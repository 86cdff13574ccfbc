"""Tests of the handler that uploads the folders of a training."""

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointSaver

from monai_mil_ext.handlers import FolderUploader, find_checkpoint
from monai_mil_ext.utils.remote import ObjectPath, StoreError, WorkFolder


def run(address, max_epochs, stop_in=None):
    """Train in a new work folder, as a new process does, and return the epochs that were trained."""
    saved, net = WorkFolder(address), torch.nn.Linear(1, 1)

    def step(engine, batch):
        if engine.state.epoch == stop_in:
            raise KeyboardInterrupt
        torch.nn.init.constant_(net.weight, engine.state.epoch)
        torch.save(net.state_dict(), saved.path / "model.pt")

    found, trainer = find_checkpoint(saved.path), Engine(step)
    if found is not None:
        trainer.load_state_dict(torch.load(found, weights_only=True)["trainer"])
    CheckpointSaver(saved.path, {"net": net, "trainer": trainer}, save_interval=1, n_saved=2).attach(trainer)
    FolderUploader([saved, WorkFolder("logs")]).attach(trainer)
    epochs = []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
    trainer.run([0], max_epochs=max_epochs)
    return epochs


def names(address):
    return sorted(path.name for path in ObjectPath(address).sizes())


def test_a_training_goes_on_from_what_was_uploaded(memory):
    address = f"{memory}/model"
    with pytest.raises(KeyboardInterrupt):
        run(address, 5, stop_in=4)
    # two checkpoints are kept, here and in the store
    assert names(address) == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt", "model.pt"]
    assert run(address, 5) == [4, 5]
    # a saver removes its own checkpoints, not those of an earlier process, as in a local folder
    assert names(address) == [*(f"checkpoint_epoch={epoch}.pt" for epoch in (2, 3, 4, 5)), "model.pt"]


def test_an_error_of_the_store_ends_the_training(memory, monkeypatch):
    def refuse(self, file):
        raise StoreError("`path` must be an object that the credentials may use")

    monkeypatch.setattr(ObjectPath, "upload", refuse)
    with pytest.raises(StoreError, match="that the credentials may use"):
        run(f"{memory}/model", 1)
    assert names(memory) == []
