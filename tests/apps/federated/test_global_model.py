"""Tests of the component that saves the global model at the server."""

import pytest
import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from torch.testing import assert_close

from monai_mil_ext.apps.bundle import TrainedModel, build_network
from monai_mil_ext.apps.federated import GlobalModelSaver
from monai_mil_ext.data import load_weights

from .federated_parts import record


@pytest.mark.parametrize("at_site", [False, True])
def test_global_model_is_saved_with_its_record_at_the_end(at_site, tmp_path):
    record().write(tmp_path / "config/model.json")
    net = build_network(record().network)
    weights = {key: value.numpy() for key, value in net.state_dict().items()}
    context = FLContext()
    context.put("__app_root__", str(tmp_path), private=True, sticky=False)
    saver = GlobalModelSaver(statistics_at_site=at_site)
    saver.handle_event(EventType.END_RUN, context)
    assert not (tmp_path / "models").exists()  # nothing was trained
    torch.save({"model": weights, "train_conf": {}}, tmp_path / "FL_global_model.pt")
    saver.handle_event(EventType.START_RUN, context)
    assert not (tmp_path / "models").exists()
    saver.handle_event(EventType.END_RUN, context)
    model = TrainedModel(tmp_path / "models")
    assert model.source("encoder") == "uni_v1"
    assert_close(load_weights(model.weights), dict(net.state_dict()))
    if at_site:
        with pytest.raises(ValueError, match="must be the model of a site, got that of the server"):
            model.preprocessing("mean")
    else:
        assert model.preprocessing("mean") is None
