"""Tests of trainings of wsi_mil on features in an object store, and of their weights and logs there."""

import numpy as np
import pytest
import torch

from monai_mil_ext.data import load_weights
from monai_mil_ext.utils.remote import ObjectPath, upload_folder
from tests.bundles.wsi import ENCODER, SMALL, content, start, write_cohort, write_small_slide

pytestmark = pytest.mark.filterwarnings("ignore:Attention is uniform")


def run(*configs, **override):
    workflow = start(*configs, **override)
    workflow.run()
    workflow.finalize()
    return workflow


def test_wsi_mil_goes_on_from_a_checkpoint_in_a_store(s3, tmp_path):
    data = write_cohort(tmp_path / "data")
    upload_folder(data, f"{s3.root}/data")
    tables = {str(tmp_path): data, s3.root: f"{s3.root}/data"}
    for place, folder in tables.items():
        paths = {"table": f"{folder}/cohort.csv", "ckpt_dir": f"{place}/m", "output_dir": f"{place}/e"}
        run("train", **paths, **{**SMALL, "epochs": 1, "lr_scheduler#T_max": 2})
        resumed = run("train", **paths, **{**SMALL, "lr_scheduler#T_max": 2})
        assert content(resumed, "resume").endswith("checkpoint_epoch=1.pt")
        run("train", "evaluate", **paths, **SMALL)
    remote = ObjectPath(f"{s3.root}/m")
    assert {path.name for path in remote.iterdir()} == {path.name for path in (tmp_path / "m").iterdir()}
    local, there = load_weights(tmp_path / "m/model.pt"), load_weights(remote / "model.pt")
    assert all(torch.equal(local[name], there[name]) for name in local)
    assert ObjectPath(f"{s3.root}/e/bags.csv").read_text() == (tmp_path / "e/bags.csv").read_text()
    logs = [path for path in ObjectPath(f"{s3.root}/e").iterdir() if path.name.startswith("events")]
    assert len(logs) == 2
    assert all(path.stat().st_size > 100 for path in logs)


def test_wsi_mil_folds_in_a_store_make_a_table(s3, tmp_path):
    table = {"table": str(write_cohort(tmp_path) / "cohort.csv"), "folds_dir": f"{s3.root}/e"}
    for fold in range(2):
        run("train", "kfold", **table, **{**SMALL, "epochs": 1}, fold=fold, ckpt_dir=f"{s3.root}/m{fold}")
    names = {str(path.relative_to(ObjectPath(s3.root))) for path in ObjectPath(s3.root).sizes()}
    assert {"e/folds.json", "e/fold_0/bags.csv", "e/fold_1/bags.csv", "m0/model.pt", "m1/model.json"} <= names


def test_wsi_mil_encodes_slides_to_a_store(s3, tmp_path):
    rows = ["case_id,patient,image,label"]
    for i in range(8):
        write_small_slide(tmp_path / f"s{i}.tif", color=(196, 60 + 60 * (i % 2), 170))
        rows.append(f"s{i},p{i},s{i}.tif,{i % 2}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    paths = {"table": str(tmp_path / "cohort.csv"), "feature_dir": f"{s3.root}/features"}
    paths |= {"ckpt_dir": f"{s3.root}/m", "output_dir": f"{s3.root}/e"}
    workflow = run("train", "slides", **paths, **{**SMALL, **ENCODER, "epochs": 1, "num_folds": 2})
    files = [item["image"] for item in content(workflow, "cohort")]
    assert len(files) == 8
    assert all(path.startswith(f"{s3.root}/features/") for path in files)
    assert np.isfinite(content(workflow, "validate#evaluator").state.best_metric)
