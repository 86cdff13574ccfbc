"""Tests of BagMetricHandler: input of the metric for padded batches, and YAML."""

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.metrics import ROCAUCMetric

from monai_mil_ext.handlers import BagMetricHandler
from monai_mil_ext.metrics import (
    AttentionMassMetric,
    BagClassificationMetric,
    FROCMetric,
    InstanceLocalizationMetric,
    bag_values,
    localization,
)
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.evaluation import bags, make_evaluator
from tests.handlers.training import F
from tests.helpers import fill


def alone(items):
    """Return attention and probabilities of each bag, computed without the others."""
    net = fill(ABMIL(F, 2, hidden_size=4))
    out = [net.forward_bag(item["image"][None]) for item in items]
    return [o.attention[0, :, 0] for o in out], torch.cat([o.logits for o in out]).softmax(1)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_bag_metric_handler_drops_padding(batch_size):
    items = bags()
    metrics = {
        "auroc": BagMetricHandler(InstanceLocalizationMetric(), "attention", "instance_label"),
        "mass": BagMetricHandler(AttentionMassMetric("entropy_ratio"), "attention", None),
        "macro_f1": BagMetricHandler(BagClassificationMetric("macro_f1")),
        "froc": BagMetricHandler(FROCMetric(tile_size=0), ["attention", "coords"], "lesions"),
    }
    evaluator = make_evaluator(items, batch_size=batch_size, key_val_metric=metrics)
    evaluator.run()
    attention, probability = alone(items)
    auroc = [localization(a, item["instance_label"])["auroc"] for a, item in zip(attention, items, strict=True)]
    values = bag_values([item["label"] for item in items], probability.detach().numpy())
    uniform = torch.stack([torch.special.entr(a).sum() / torch.tensor(len(a)).log() for a in attention]).mean().item()
    assert evaluator.state.metrics["auroc"] == pytest.approx((auroc[1] + auroc[3]) / 2)
    assert evaluator.state.metrics["macro_f1"] == pytest.approx(values["bag_macro_f1"])
    assert evaluator.state.metrics["mass"] == pytest.approx(uniform, rel=1e-5)
    assert 0 < evaluator.state.metrics["froc"] <= 1
    assert evaluator.state.metric_details["auroc"].shape == (5, 1)


def test_bag_metric_handler_in_yaml():
    config = yaml.safe_load("""
    imports: [$import monai_mil_ext]
    key_metric:
      pointing:
        _target_: BagMetricHandler
        metric_fn: {_target_: InstanceLocalizationMetric, metric: pointing_game}
        pred: attention
        label: instance_label
    """)
    metric = ConfigParser(config).get_parsed_content("key_metric")
    evaluator = make_evaluator(bags(), key_val_metric=metric)
    evaluator.run()
    assert evaluator.state.key_metric_name == "pointing"
    assert evaluator.state.metrics["pointing"] in (0, 0.5, 1)


def test_bag_metric_handler_resets_for_each_epoch():
    evaluator = make_evaluator(bags(), key_val_metric={"f1": BagMetricHandler(BagClassificationMetric())})
    evaluator.run(1)
    first = evaluator.state.metrics["f1"]
    evaluator.run(2)
    assert evaluator.state.metrics["f1"] == first


def test_bag_metric_handler_names_bad_input():
    with pytest.raises(TypeError, match="`metric_fn` must be a BagIterationMetric, got ROCAUCMetric"):
        BagMetricHandler(ROCAUCMetric())
    wrong = {"found": BagMetricHandler(InstanceLocalizationMetric(), "attention", "labels")}
    with pytest.raises(ValueError, match="must be keys of an item, got 'labels' beside"):
        make_evaluator(bags(), key_val_metric=wrong).run()
    twice = [bags()[0], bags()[0]]
    handler = {"f1": BagMetricHandler(BagClassificationMetric())}
    with pytest.raises(ValueError, match="`case_id` must be the name of one bag, got 'case_0' twice"):
        make_evaluator(twice, key_val_metric=handler).run()
