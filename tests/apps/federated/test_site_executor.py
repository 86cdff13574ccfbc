"""Tests of the executor of a site, with a stand-in for what FLARE passes."""

import json
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from monai_mil_ext.apps.bundle import build_network
from monai_mil_ext.apps.federated import SiteExecutor
from monai_mil_ext.apps.federated.site_executor import _filled
from monai_mil_ext.networks.nets import ABMIL

from .federated_parts import F, record, settings, write_site

pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config", "ignore:Attention is uniform")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An executor with the context of its site, and the reasons why it ended a job."""
    (tmp_path / "local").mkdir()
    record(net=ABMIL(F, 2, hidden_size=16)).write(tmp_path / "app/config/model.json")
    workspace = SimpleNamespace(get_site_config_dir=lambda: str(tmp_path / "local"))
    context = FLContext()
    context.put("__engine__", SimpleNamespace(get_workspace=lambda: workspace), private=True, sticky=False)
    context.put("__app_root__", str(tmp_path / "app"), private=True, sticky=False)
    context.put("__identity_name__", "north", private=False, sticky=False)
    monkeypatch.setattr(FLContext, "get_engine", lambda self: SimpleNamespace(get_workspace=lambda: workspace))
    reasons = []
    monkeypatch.setattr(SiteExecutor, "system_panic", lambda self, reason, _: reasons.append(reason))
    return SiteExecutor(options={"epochs": 1, "num_folds": 4}), context, reasons


def administer(folder, **more):
    text = json.dumps(settings(folder / "{site}", **more))
    (folder / "local/monai_mil_ext.json").write_text(text)


def test_a_site_trains_and_validates_and_keeps_the_last_model(site, tmp_path):
    executor, context, reasons = site
    administer(tmp_path)
    write_site(tmp_path / "north", number=16)
    executor.handle_event(EventType.START_RUN, context)
    assert reasons == []
    net = build_network(record(net=ABMIL(F, 2, hidden_size=16)).network)
    sent = FLModelUtils.to_shareable(FLModel("FULL", {key: v.numpy() for key, v in net.state_dict().items()}))
    update = FLModelUtils.from_shareable(executor.execute("train", sent, context, None))
    assert update.params_type == "DIFF"
    assert update.params.keys() == net.state_dict().keys()
    assert update.metrics.keys() == {"bag_auroc"}
    assert update.meta["NUM_STEPS_CURRENT_ROUND"] == 1
    sent.set_header(AppConstants.MODEL_OWNER, "SRV_best_FL_global_model.pt")
    assert FLModelUtils.from_shareable(executor.execute("validate", sent, context, None)).metrics == update.metrics
    assert not (tmp_path / "north/models/model.pt").exists()
    sent.set_header(AppConstants.MODEL_OWNER, "SRV_FL_global_model.pt")
    executor.execute("validate", sent, context, None)
    assert (tmp_path / "north/models/model.json").exists()
    assert executor.execute("other", sent, context, None).get_return_code() == ReturnCode.TASK_UNKNOWN
    executor.handle_event(EventType.END_RUN, context)


def test_the_name_of_the_site_stands_in_any_text_of_its_settings():
    scans = [{"case_id": "a", "image": "/srv/{site}/a", "label": 1}]
    filled = _filled({"dataset_dir": "/srv/{site}", "scans": scans, "fold": 0}, "north")
    assert filled == {"dataset_dir": "/srv/north", "scans": [{**scans[0], "image": "/srv/north/a"}], "fold": 0}


def test_the_server_is_told_why_a_site_does_not_fit(site, tmp_path):
    executor, context, reasons = site
    executor.handle_event(EventType.START_RUN, context)
    assert reasons == ["north must have its settings in local/monai_mil_ext.json, got none."]
    assert executor.execute("train", Shareable(), context, None).get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    administer(tmp_path, class_names=["a", "b"])
    executor.handle_event(EventType.START_RUN, context)
    assert reasons[1] == "`class_names` of north must be that of the job, ['normal', 'tumor'], got ['a', 'b']."


def test_the_server_is_not_told_what_may_name_a_patient(site, tmp_path):
    executor, context, reasons = site
    administer(tmp_path)
    write_site(tmp_path / "north", number=4)
    (tmp_path / "north/cohort.csv").write_text("bag,patient,label\nb0.h5,Doe,normal\nDoe_John.h5,p1,tumor\n")
    executor.handle_event(EventType.START_RUN, context)
    assert reasons == ["north has a ValueError, see its log"]
