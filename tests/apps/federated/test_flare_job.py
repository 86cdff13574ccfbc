"""Tests of a job of NVIDIA FLARE: what it is made of, and a run in FLARE's simulator."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from torch.testing import assert_close

from monai_mil_ext.apps.bundle import TrainedModel, build_network, save_model
from monai_mil_ext.apps.federated import CLASS_ALLOW_LIST, federated_job
from monai_mil_ext.data import ModelRecord, load_weights
from monai_mil_ext.networks.nets import ABMIL, QGMIL, QGMILBlock
from tests.workflows import causes, open_workflow

from .federated_parts import BUNDLES, F, record

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config", "ignore:Attention is uniform")


def classes(folder):
    """Classes that the configs of an exported job name."""
    configs = [json.loads(path.read_text()) for path in folder.rglob("config_fed_*.json")]
    return set(re.findall(r'"path": "([^"]+)"', json.dumps(configs)))


def test_a_job_has_no_code_and_names_only_what_is_allowed(tmp_path):
    net = QGMIL(F, 2, hidden_size=16, block=QGMILBlock(num_heads=2))
    record("wsi_mil", net=net).write(tmp_path / "model.json")
    federated_job(tmp_path / "model.json", 2, 5, 3, {"anchor": 0.1}).export(str(tmp_path / "job"))
    files = [path for path in (tmp_path / "job").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json"}
    client = json.loads(next(path for path in files if path.name == "config_fed_client.json").read_text())
    assert client["executors"][0]["executor"]["args"] == {"local_epochs": 3, "options": {"epochs": 15, "anchor": 0.1}}
    others = classes(tmp_path / "job") - set(DEFAULT_CLASS_ALLOW_LIST)
    assert "monai_mil_ext.networks.nets.QGMILBlock" in others
    assert {name for name in others if not name.startswith(CLASS_ALLOW_LIST)} == set()
    assert {rule for rule in CLASS_ALLOW_LIST if not any(name.startswith(rule) for name in others)} == set()
    page = (ROOT / "docs/how-to/federated.md").read_text()
    assert [rule for rule in CLASS_ALLOW_LIST if f'"{rule}"' not in page] == []


def test_a_job_is_refused_without_what_sites_are_checked_against(tmp_path):
    with pytest.raises(ValueError, match=r"`record` must be a file model.json, got 'job.json'"):
        federated_job(tmp_path / "job.json", 2, 2)
    ModelRecord("bag_classifier", task={"kind": "classification"}).write(tmp_path / "model.json")
    with pytest.raises(ValueError, match="`record` must state network, sources, which all sites are checked against"):
        federated_job(tmp_path / "model.json", 2, 2)
    record(net=ABMIL(F, 2)).write(tmp_path / "model.json")
    with pytest.raises(ValueError, match="`options` of a job must be numbers"):
        federated_job(tmp_path / "model.json", 2, 2, options={"network_def": "$print()"})
    with pytest.raises(ValueError, match="`num_rounds` must be a positive integer"):
        federated_job(tmp_path / "model.json", 2, 0)


def simulate(folder, bundle):
    """Run the job of a bundle, and end all of its processes if it takes too long."""
    command = [sys.executable, "-m", "tests.apps.federated.run_simulator", str(folder), bundle]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes) as process:
        try:
            output, _ = process.communicate(timeout=280)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, output[-3000:]


def trained(folder, bundle, *metrics):
    """Run the job, and return the global weights and the folders of the models: that of the server and of both sites.

    All models are the global one, and their records have the hash of its weights.
    """
    simulate(folder, bundle)
    server = folder / "simulator/mil/server/simulate_job"
    final = load_weights(server / "app_server/FL_global_model.pt")
    models = [server / "app_server/models", *(folder / f"site-{n}/models" for n in (1, 2))]
    for model in models:
        assert TrainedModel(model)._known.name == bundle
        assert_close(load_weights(model / "model.pt"), final)
    best = json.loads((server / "cross_site_val/cross_val_results.json").read_text())
    assert best.keys() == {"site-1", "site-2"}
    assert {tuple(values) for sites in best.values() for values in sites.values()} == {("bag_auroc", *metrics)}
    logs = "".join(path.read_text() for path in (folder / "simulator").rglob("log.txt"))
    assert "new best validation metric" in logs  # by the key metric, which is not FLARE's default
    return final, models


def infer(models, folder, **options):
    paths = {"bundle_root": str(BUNDLES / "bag_classifier"), "ckpt_dir": str(models), "output_dir": str(folder / "out")}
    config = BUNDLES / "bag_classifier/configs/inference.yaml"
    workflow = open_workflow(config, kind="infer", input=str(folder), **paths, **options)
    workflow.run()
    return (folder / "out/predictions.csv").read_text()


@pytest.mark.slow(buys="two sites and two rounds in FLARE's own simulator, whose global model inference loads")
def test_two_sites_train_in_flares_simulator(tmp_path):
    final, models = trained(tmp_path, "bag_classifier")
    scales = [np.mean(ModelRecord.read(folder).preprocessing["scale"]) for folder in models[1:]]
    assert scales[1] > 4 * scales[0]  # each site has the statistics of its own scanner
    assert infer(models[1], tmp_path / "site-1").count("agrees with the training") == 40
    with pytest.raises(RuntimeError, match="Failed to") as raised:
        infer(models[0], tmp_path / "site-1")
    assert "`ckpt_dir` must be the model of a site, got that of the server" in causes(raised.value)
    own = "$monai_mil_ext.data.FeatureStatistics.from_items(@items)"
    assert infer(models[0], tmp_path / "site-2", statistics=own).count("agrees with the training") == 40
    assert not any(re.search(r"anchor|mean|scale", key) for key in final)


@pytest.mark.slow(buys="federated.yaml of slides and of scans with a server, two sites and two rounds")
@pytest.mark.parametrize(("bundle", "metrics"), [("wsi_mil", ["bag_macro_f1", "bag_kappa"]), ("scan_mil", [])])
def test_two_sites_of_each_other_bundle_train_in_flares_simulator(bundle, metrics, tmp_path):
    final, models = trained(tmp_path, bundle, *metrics)
    records = [ModelRecord.read(folder) for folder in models]
    assert {entry.sources[0].width for entry in records} == {F}
    assert [bool(entry.cohort) for entry in records] == [False, True, True]  # of its own site, at the sites alone
    assert final.keys() == build_network(records[0].network).state_dict().keys()


def test_the_record_of_a_server_names_the_statistics_that_stayed_at_the_sites(tmp_path):
    save_model(tmp_path, ABMIL(F, 2), preprocessing={"at_site": ["mean", "scale"]})
    with pytest.raises(ValueError, match="`ckpt_dir` must be the model of a site, got that of the server"):
        TrainedModel(tmp_path).preprocessing("mean")
