"""Tests of the handler that loads weights."""

import pytest
import torch
from ignite.engine import Engine

from monai_mil_ext.handlers import WeightsLoader
from monai_mil_ext.networks.nets import ABMIL


def load(path, net):
    engine = Engine(lambda engine, batch: None)
    WeightsLoader(str(path), net).attach(engine)
    engine.run([0])


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "train_conf": {}}], ids=["plain", "flare"])
def test_weights_loader_loads_at_the_start_of_a_run(wrap, tmp_path):
    trained, net = ABMIL(4, 2), ABMIL(4, 2)
    torch.save(wrap(trained.state_dict()), tmp_path / "model.pt")
    load(tmp_path / "model.pt", net)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), net.parameters(), strict=True))


def test_weights_loader_names_what_does_not_fit(tmp_path):
    torch.save(ABMIL(5, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="must have the weights of this ABMIL, got others: size mismatch for"):
        load(tmp_path / "model.pt", ABMIL(4, 2))


def test_weights_loader_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be a file of weights that exists, got 'model\.pt'"):
        load(tmp_path / "model.pt", ABMIL(4, 2))
