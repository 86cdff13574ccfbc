"""Tests of bag_classifier with tables, features, models and results in an object store."""

import csv
import io

import numpy as np
import pytest

from monai_mil_ext.apps.bundle import TrainedModel, save_model
from monai_mil_ext.data import InstanceSource, write_bag
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.utils.remote import ObjectPath, upload_folder
from tests.bundles.small_bags import BUNDLE
from tests.object_store import KEY, SECRET
from tests.workflows import causes, configs_of, open_workflow

F = 8


@pytest.fixture
def root(s3, monkeypatch, tmp_path):
    """Return the address of a bucket with a table, features and a model."""
    monkeypatch.chdir(BUNDLE)
    rows = ["case_id,patient,image,label"]
    for i in range(12):
        write_bag(f"{s3.root}/features/b{i}.h5", {"features": np.full((4, F), i % 2, np.float32)}, {"encoder": "e"})
        rows.append(f"b{i},p{i},features/b{i}.h5,{i % 2}")
    ObjectPath(f"{s3.root}/cohort.csv").write_bytes("\n".join(rows).encode())
    task = {"kind": "classification", "num_classes": 2, "level": "bag"}
    save_model(tmp_path / "m", ABMIL(F, 2, hidden_size=16), sources=[InstanceSource(width=F, encoder="e")], task=task)
    upload_folder(tmp_path / "m", f"{s3.root}/model")
    return s3.root


def predictions(address):
    return {row["case_id"]: row for row in csv.DictReader(io.StringIO(ObjectPath(address).read_text()))}


def test_bag_classifier_inference_reads_from_and_writes_to_a_store(root, tmp_path, capfd, caplog):
    table = ObjectPath(f"{root}/cohort.csv")
    table.write_bytes(table.read_bytes() + b"\nlost,q,features/lost.h5,0\nfar,q,s3://another/x.h5,0")
    places = {"input": str(table), "ckpt_dir": f"{root}/model", "output_dir": f"{root}/eval"}
    workflow = open_workflow(*configs_of("inference"), kind="infer", **places)
    with pytest.raises(RuntimeError, match="Failed to") as raised:
        workflow.run()
    assert "got none for 2 of 14" in causes(raised.value)
    rows = predictions(f"{root}/eval/predictions.csv")
    assert [row["status"][:10] for row in rows.values()] == ["done"] * 12 + ["unreadable"] * 2
    assert "`image` must lie below `root`" in rows["far"]["status"]
    assert len({row["probability_1"] for row in rows.values()}) == 3
    local = TrainedModel(tmp_path / "m").identity()
    assert TrainedModel(f"{root}/model").identity() == local
    assert rows["b0"]["model_sha256"] == local["sha256"][:12]
    printed = "".join(capfd.readouterr()) + caplog.text
    assert KEY not in printed
    assert SECRET not in printed


def test_bag_classifier_trains_on_a_table_of_a_store(root, tmp_path):
    places = {"table": f"{root}/cohort.csv", "ckpt_dir": str(tmp_path / "t"), "output_dir": str(tmp_path / "e")}
    workflow = open_workflow(*configs_of("train"), kind="train", **places, epochs=1, num_folds=2, num_samples=10)
    workflow.run()
    workflow.finalize()
    record = TrainedModel(tmp_path / "t").record
    assert record.cohort["table_sha256"]
    assert record.sources[0].encoder == "e"


@pytest.mark.parametrize(
    ("config", "setting"), [("train", "ckpt_dir"), ("train", "output_dir"), ("study", "study_dir")]
)
def test_folders_of_work_are_refused_by_name(root, config, setting):
    with pytest.raises(RuntimeError, match="Failed to") as raised:
        open_workflow(*configs_of(config), kind="train", table=f"{root}/cohort.csv", **{setting: f"{root}/work"})
    text = f"`{setting}` must be a local path, got an address"
    assert text in causes(raised.value)
    assert not ObjectPath(f"{root}/work").exists()
