"""Tests of a site of a federated training, without a server."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.apps.bundle import TrainedModel, build_network
from monai_mil_ext.apps.federated import FederatedSite
from monai_mil_ext.apps.federated.federated_site import SiteRefusedError, network_config
from monai_mil_ext.data import FeatureStatistics, ModelRecord
from tests.workflows import content, open_workflow

from .federated_parts import BUNDLES, CLASSES, OPTIONS, SITES, average, record, settings, write_site

pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config", "ignore:Attention is uniform")


@pytest.fixture
def opened():
    """Open sites that are closed after the test."""
    sites = []

    def make(*arguments, **options):
        sites.append(FederatedSite(*arguments, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def anchor(site):
    return content(site._algo.train_workflow, "train#named_handlers#anchor")


def test_sites_train_one_network_and_keep_anchor_and_statistics(opened, tmp_path):
    job = record()
    folders = [write_site(tmp_path / f"site-{n}", seed=n, scale=scale, number=16) for n, scale in ((1, 1.0), (2, 5.0))]
    sites = [opened(job, f.name, settings(f), {**OPTIONS, "epochs": 4}, 2) for f in folders]
    weights = {key: value.clone() for key, value in build_network(job.network).state_dict().items()}
    for _ in range(2):
        updates = [site.train(weights) for site in sites]
        assert [set(update.differences) for update in updates] == [set(weights)] * 2  # nothing else travels
        weights = {key: value + average(updates)[key] for key, value in weights.items()}
    assert updates[0].steps == 2 * len(sites[0]._algo.trainer.data_loader)
    states = [anchor(site).state_dict() for site in sites]
    assert [state["steps"] for state in states] == [2 * update.steps for update in updates]
    assert not torch.equal(states[0]["anchor"]["classify.weight"], states[1]["anchor"]["classify.weight"])
    kept = [ModelRecord.read(site.keep(weights)) for site in sites]
    assert kept[0].weights == kept[1].weights  # the same global model
    for site, own in zip(sites, kept, strict=True):
        items = content(site._algo.train_workflow, "train_items")
        assert own.preprocessing["scale"] == FeatureStatistics.from_items(items).scale.tolist()
    assert np.mean(kept[1].preprocessing["scale"]) > 4 * np.mean(kept[0].preprocessing["scale"])
    assert 0 <= sites[0].evaluate(weights)["bag_auroc"] <= 1


@pytest.mark.slow(buys="federated.yaml of each bundle, and inference with the global model")
@pytest.mark.parametrize("make", SITES.values(), ids=SITES)
def test_each_bundle_that_trains_trains_at_a_site_and_loads_the_global_model(make, opened, tmp_path):
    job, own, options = make(tmp_path / "data")
    site = opened(job, "north", own, {**options, "epochs": 1})
    weights = build_network(job.network).state_dict()
    update = site.train(weights)
    assert any(value.abs().sum() > 0 for value in update.differences.values())
    assert not (tmp_path / "data/models/model.pt").exists()  # no weights of this site alone
    trained = {key: value + update.differences[key] for key, value in weights.items()}
    for sent in (weights, trained):
        trained_model = TrainedModel(site.keep(sent))  # whose record has the hash of these weights
    assert list(trained_model._known.class_names) == CLASSES
    where = {name: own[name] for name in ("ckpt_dir", "output_dir")}
    source = tmp_path / "data" / ("a" if job.name == "scan_mil" else "b0.h5")
    more = {"input": str(source), "bundle_root": own["bundle"]}
    more |= {name: own[name] for name in ("encoder",) if name in own}
    inference = open_workflow(f"{own['bundle']}/configs/inference.yaml", kind="infer", **where, **more)
    inference.run()
    assert_close(dict(content(inference, "network").state_dict()), trained)


@pytest.mark.parametrize(
    ("site", "own", "message"),
    [
        ({"encoder": "gigapath"}, {}, r"^north is refused: the job is for encoder uni_v1, got encoder gigapath\.$"),
        ({"width": 6}, {}, r"^north is refused: the job is for 8 features, got 6 features\.$"),
        ({}, {"class_names": CLASSES[::-1]}, r"^`class_names` of north must be .*\['normal', 'tumor'\], got \['tumor'"),
        ({}, {"bundle": str(BUNDLES / "instance_encoder")}, r"^`bundle` must be the folder of a bundle that trains"),
        ({}, {"network_def": {"_target_": "ABMIL"}}, r"^`settings` must be without network_def"),
        ({}, {"level": "patient"}, r"^`level` of north must be that of the job, bag, got patient"),
    ],
)
def test_a_site_that_does_not_fit_the_job_is_refused_by_name(site, own, message, tmp_path):
    folder = write_site(tmp_path, number=12, **site)
    with pytest.raises(SiteRefusedError, match=message):
        FederatedSite(record(level="bag"), "north", settings(folder, **own))


def test_the_model_of_a_site_lies_on_its_machine(tmp_path):
    own = settings(write_site(tmp_path, number=4), ckpt_dir="s3://bucket/model")
    with pytest.raises(ValueError, match="`ckpt_dir` must be a local path, got an address that begins with 's3://'"):
        FederatedSite(record(), "north", own)


def test_a_site_has_a_bundle():
    with pytest.raises(SiteRefusedError, match="`settings` must have bundle, the folder of the bundle at this site"):
        FederatedSite(record(), "north", {})


def test_a_label_that_is_no_class_of_the_job_is_an_error_of_the_cohort(tmp_path):
    folder = write_site(tmp_path, number=12)
    (folder / "cohort.csv").write_text((folder / "cohort.csv").read_text().replace("tumor", "benign"))
    with pytest.raises(ValueError, match="benign") as raised:
        FederatedSite(record(), "north", settings(folder))
    assert not isinstance(raised.value, SiteRefusedError)  # whose text may leave the site


@pytest.mark.parametrize(
    "options", [{"run": "$print(1)"}, {"network_def#_target_": 1}, {"anchor": [1]}, {"imports": {"a": "b"}}]
)
def test_a_job_sets_numbers_and_no_code(options, tmp_path):
    with pytest.raises(ValueError, match="`options` of a job must be numbers by names of options, got"):
        FederatedSite(record(), "north", settings(write_site(tmp_path, number=4)), options)


def test_network_config_is_that_of_a_config_or_of_flare():
    block = {"class": "QGMILBlock", "arguments": {"num_heads": 2}}
    described = {"class": "QGMIL", "arguments": {"in_features": 8, "block": block}}
    nets = "monai_mil_ext.networks.nets"
    inner = {"_target_": f"{nets}.QGMILBlock", "num_heads": 2}
    assert network_config(described) == {"_target_": f"{nets}.QGMIL", "in_features": 8, "block": inner}
    flare = network_config(described, "path", "args")
    assert json.loads(json.dumps(flare))["args"]["block"] == {"path": f"{nets}.QGMILBlock", "args": {"num_heads": 2}}
