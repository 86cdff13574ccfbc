"""Tests of active learning: uncertainty, and the image to label next."""

import pytest
import torch

from monai_mil_ext.apps.label import UncertaintyScoring, UncertaintyStrategy
from monai_mil_ext.apps.label.active_learning import normalized_entropy, nothing_to_label

from .server_parts import Datastore, HTTPError, without_init


@pytest.mark.parametrize(("probability", "expected"), [([1.0], 0.0), ([0.25] * 4, 1.0), ([0.0, 1.0, 0.0], 0.0)])
def test_normalized_entropy_is_0_for_certain_and_1_for_uniform(probability, expected):
    assert normalized_entropy(probability) == pytest.approx(expected)


def test_uncertainty_scoring_keeps_scores_and_reasons(tmp_path):
    store = Datastore(tmp_path, images=("b", "a", "labeled", "broken"))
    store.infos["labeled"]["bag_label"] = 1
    requests = []

    def infer(request):
        requests.append(request)
        if request["image"] == "broken":
            raise HTTPError(400, "no scan")
        return {"params": {"uncertainty": 0.25}}

    scoring = without_init(UncertaintyScoring, infer=infer, model="net")
    result = scoring({"device": "cpu"}, store)
    assert result == {"model": "net", "uncertainty": {"a": 0.25, "b": 0.25}, "failed": {"broken": "no scan"}}
    assert [request["image"] for request in requests] == ["a", "b", "broken"]
    assert requests[0]["device"] == "cpu"
    assert not requests[0]["result_write_to_file"]
    assert store.infos["a"] == {"uncertainty": 0.25, "uncertainty_of": "net"}
    assert store.infos["broken"] == {}


def test_uncertainty_scoring_says_that_a_model_without_classes_has_none(tmp_path):
    scoring = without_init(UncertaintyScoring, infer=lambda request: {"params": {"uncertainty": None}}, model="net")
    result = scoring({}, Datastore(tmp_path, images=("a",)))
    assert (result["uncertainty"], result["failed"]) == ({}, {"a": "a model without classes has no uncertainty"})


def test_uncertainty_strategy_selects_the_highest_and_unscored_images_last(tmp_path):
    store = Datastore(tmp_path, images=("a", "b", "c", "d"))
    for image, info in {"a": {"uncertainty": 0.2}, "c": {"uncertainty": 0.9, "bag_label": 0}}.items():
        store.infos[image] = info
    strategy = without_init(UncertaintyStrategy)
    assert strategy({}, store) == {"id": "a", "weight": 0.2}
    store.infos["a"]["bag_label"] = 1
    image = strategy({}, store)
    assert (image["id"] in ("b", "d"), image["weight"]) == (True, -1.0)
    assert image["waits_for"].startswith("no image has a score: POST /scoring/uncertainty")
    for info in store.infos.values():
        info["bag_label"] = 1
    assert strategy({}, store) is None
    assert nothing_to_label(store) == "all images have a label: add studies"
    assert nothing_to_label(Datastore(tmp_path, images=())) == "there are no studies: add some"


def test_normalized_entropy_equals_its_definition():
    p = torch.tensor([0.1, 0.2, 0.7])
    expected = torch.distributions.Categorical(p).entropy() / torch.log(torch.tensor(3.0))
    assert normalized_entropy(p.tolist()) == pytest.approx(float(expected), abs=1e-6)
