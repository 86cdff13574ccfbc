"""Tests of bag_classifier with tables, features, models and results in an object store."""

import csv
import io

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.bundle import TrainedModel, save_model
from monai_mil_ext.data import InstanceSource, load_weights, write_bag
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


def run(root, *configs, kind="train", **values):
    workflow = open_workflow(*configs_of(*configs), kind=kind, table=f"{root}/cohort.csv", **values)
    workflow.run()
    workflow.finalize()


def test_bag_classifier_trains_from_and_to_a_store_as_locally(root, tmp_path):
    few = {"epochs": 2, "num_folds": 2, "num_samples": 10}
    for place in (str(tmp_path), root):
        run(root, "train", ckpt_dir=f"{place}/t", output_dir=f"{place}/e", **few)
        run(root, "train", "evaluate", ckpt_dir=f"{place}/t", output_dir=f"{place}/e", **few)
    names = {path.name for path in ObjectPath(f"{root}/t").iterdir()}
    assert names == {path.name for path in (tmp_path / "t").iterdir()} >= {"model.pt", "model.json", "split.json"}
    local, remote = (load_weights(f"{place}/t/model.pt") for place in (tmp_path, root))
    assert all(torch.equal(local[name], remote[name]) for name in local)
    assert TrainedModel(f"{root}/t").record.cohort["table_sha256"]
    assert ObjectPath(f"{root}/e/bags.csv").read_text() == (tmp_path / "e/bags.csv").read_text()


def test_bag_classifier_studies_from_and_to_a_store_as_locally(root, tmp_path, capfd):
    few = {"epochs": 1, "num_folds": 2, "num_samples": 10, "methods": "MeanMIL", "on_bad": "skip"}
    table = ObjectPath(f"{root}/cohort.csv")
    table.write_bytes(table.read_bytes() + b"\nlost,q,features/lost.h5,0")
    for place in (str(tmp_path), root, root):
        capfd.readouterr()
        run(root, "study", study_dir=f"{place}/study", **few)
    assert "runs to do" not in capfd.readouterr().out  # of the second run in the store
    local, remote = tmp_path / "study", ObjectPath(f"{root}/study")
    names = {str(path.relative_to(remote)) for path in remote.sizes()}
    assert names == {str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()}
    tables = [name for name in names if name.endswith(".csv")]
    assert {"cohort/left_out.csv", "predictions/MeanMIL.csv"} <= set(tables)
    for name in tables:
        assert (remote / name).read_text() == (local / name).read_text()


@pytest.mark.parametrize(("config", "setting"), [("train", "ckpt_dir"), ("study", "study_dir")])
def test_a_bucket_that_does_not_exist_is_named_before_the_work(root, config, setting):
    with pytest.raises(RuntimeError, match="Failed to") as raised:
        run(root, config, **{setting: "s3://nowhere/work"})
    assert "`path` must lie in a bucket that exists, got none for 'work'" in causes(raised.value)


def test_bag_classifier_writes_a_check_to_a_store(root):
    with pytest.raises(SystemExit, match="1"):  # of problems of the small cohort, after both files
        run(root, "check", output_dir=f"{root}/check")
    assert {path.name for path in ObjectPath(f"{root}/check").iterdir()} == {"check.csv", "check.json"}
