"""Tests of bag_classifier as a client of federated learning: two sites in one process, averaged as by a server."""

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch.testing import assert_close

from tests.bundles.small_bags import BUNDLE, bags, scripts

NETWORK = {"_target_": "monai_mil_ext.networks.nets.ABMIL", "in_features": 8, "num_classes": 2, "hidden_size": 16}
LOCAL_EPOCHS, MOMENTUM = 3, 0.9
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config", "ignore:Attention is uniform")


@pytest.fixture
def site(tmp_path):
    """Make a client with bags of its own."""
    made = []

    def make(number, **options):
        folder = tmp_path / f"site{number}"
        scripts("prepare").write_cohort(bags(80, seed=number), folder / "cohort.csv")
        settings = {"dataset_dir": str(folder), "ckpt_dir": str(folder / "models"), "output_dir": str(folder / "eval")}
        settings |= {"network_def": NETWORK, "num_folds": 4, "learning_rate": 0.01, "batch_size": 8, "anchor": 0.1}
        client = MonaiAlgo(
            str(BUNDLE),
            local_epochs=LOCAL_EPOCHS,
            config_train_filename="configs/train.yaml",  # alone, it keeps the site's own best epoch, too
            config_evaluate_filename=["configs/train.yaml", "configs/federated.yaml"],
            train_kwargs={**settings, "train#named_handlers#anchor#momentum": MOMENTUM},
            eval_kwargs=dict(settings),
            best_model_filepath=str(folder / "models" / "model.pt"),
            save_dict_key="network",
            **options,
        )
        client.initialize({ExtraItems.CLIENT_NAME: f"site{number}"})
        made.append(client)
        return client

    yield make
    for client in made:
        client.finalize()


def anchor(client):
    return client.train_workflow.parser.get_parsed_content("train#named_handlers#anchor")


def mean(exchanged):
    return {key: torch.stack([entry.weights[key] for entry in exchanged]).mean(0) for key in exchanged[0].weights}


def test_bag_classifier_federated_keeps_anchors_local(site, tmp_path):
    clients = [site(number, send_weight_diff=False) for number in (0, 1)]
    weights = clients[0].get_weights().weights
    first = [client.evaluate(ExchangeObject(weights=weights)).metrics["bag_auroc"] for client in clients]
    for _ in range(4):
        for client in clients:
            client.train(ExchangeObject(weights=weights), {})
        sent = [client.get_weights() for client in clients]
        weights = mean(sent)
    networks = [client.trainer.network for client in clients]
    for exchanged, client in zip(sent, clients, strict=True):
        assert exchanged.weight_type == WeightType.WEIGHTS
        assert exchanged.optim is None
        assert exchanged.weights.keys() == client.trainer.network.state_dict().keys()  # and so nothing of the anchor
        assert_close(exchanged.weights, dict(client.trainer.network.state_dict()))
    assert not torch.equal(networks[0].classify.weight, networks[1].classify.weight)
    states = [anchor(client).state_dict() for client in clients]
    assert [state["steps"] for state in states] == [4 * LOCAL_EPOCHS * len(c.trainer.data_loader) for c in clients]
    assert not torch.equal(states[0]["anchor"]["classify.weight"], states[1]["anchor"]["classify.weight"])
    result = [client.evaluate(ExchangeObject(weights=weights)).metrics["bag_auroc"] for client in clients]
    assert min(result) > 0.9 > max(first), (first, result)
    best = clients[0].get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL})
    assert best.weights.keys() == weights.keys()
    assert sorted(path.name for path in (tmp_path / "site0").rglob("*.pt")) == ["model.pt"]


def test_bag_classifier_federated_anchor_averages_over_global_weights(site):
    client = site(0, send_weight_diff=False)
    weights, seen = client.get_weights().weights, []
    client.trainer.optimizer.register_step_post_hook(
        lambda *_: seen.append({name: p.detach().clone() for name, p in client.trainer.network.named_parameters()})
    )
    client.train(ExchangeObject(weights=weights), {})
    before = {name: t.clone() for name, t in anchor(client).state_dict()["anchor"].items()}
    foreign = {name: t + 0.5 for name, t in weights.items()}
    seen.clear()
    client.train(ExchangeObject(weights=foreign), {})
    assert len(seen) == LOCAL_EPOCHS * len(client.trainer.data_loader)
    for name, expected in before.items():
        for step in seen:  # the first of which comes from the global weights
            expected = MOMENTUM * expected + (1 - MOMENTUM) * step[name]  # noqa: PLW2901
        assert_close(anchor(client).state_dict()["anchor"][name], expected, rtol=1e-4, atol=1e-6)


def test_bag_classifier_federated_sends_differences_on_request(site):
    client = site(0)
    weights = {name: t.clone() for name, t in client.trainer.network.state_dict().items()}
    client.train(ExchangeObject(weights=weights), {})
    sent = client.get_weights()
    assert sent.weight_type == WeightType.WEIGHT_DIFF
    now = client.trainer.network.state_dict()
    assert_close(sent.weights, {name: now[name] - weights[name] for name in weights})
