"""Tests that metrics and savers of two processes equal those of one exactly, for five bags, one of them repeated."""

import json

import torch
from monai.data import DistributedSampler
from torch import distributed

from monai_mil_ext.handlers import AttentionStabilityHandler, BagMetricHandler, BagResultsSaver
from monai_mil_ext.metrics import AttentionMassMetric, BagClassificationMetric, FROCMetric, InstanceLocalizationMetric
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.evaluation import bags, make_evaluator
from tests.handlers.training import F
from tests.helpers import fill

FILES = ("bags.csv", "instances.csv", "report.json", "attention_stability.csv", "attention_stability.json")


def metrics():
    """Return one metric of each kind."""
    localized = ("auroc", "pointing_game", "precision_at_0.1", "skill")
    return {
        **{m: BagMetricHandler(InstanceLocalizationMetric(m), "attention", "instance_label") for m in localized},
        **{f"bag_{m}": BagMetricHandler(BagClassificationMetric(m)) for m in ("auroc", "auprc", "macro_f1", "kappa")},
        "effective_number": BagMetricHandler(AttentionMassMetric(), "attention", None),
        "froc": BagMetricHandler(FROCMetric(tile_size=0), ["attention", "coords"], "lesions"),
    }


def evaluate(folder, **sampling):
    """Evaluate two epochs, with other weights in the second, and return the metrics of the second."""
    net = fill(ABMIL(F, 2, hidden_size=4))
    items = bags()
    sampler = DistributedSampler(items, shuffle=False, **sampling) if sampling else None
    handlers = (BagResultsSaver(folder, num_samples=5), AttentionStabilityHandler(folder))
    evaluator = make_evaluator(items, *handlers, net=net, sampler=sampler, key_val_metric=metrics())
    evaluator.run(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    evaluator.run(2)
    return dict(evaluator.state.metrics)


def work(rank, folder):
    """Evaluate in one of two processes, with a sampler that repeats the first bag, and with one that does not."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for even in (True, False):
        values = evaluate(f"{folder}/{even}", even_divisible=even)
        torch.save(values, f"{folder}/{rank}_{even}.pt")
    distributed.destroy_process_group()


def test_bag_metric_handler_of_two_processes_equals_one(tmp_path):
    torch.multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="forkserver")
    expected = evaluate(str(tmp_path / "one"))
    assert len(expected) == len(metrics()) + 2
    for even in (True, False):
        for rank in (0, 1):
            assert torch.load(tmp_path / f"{rank}_{even}.pt", weights_only=True) == expected
        for name in FILES:
            assert (tmp_path / str(even) / name).read_text() == (tmp_path / "one" / name).read_text()
    assert json.loads((tmp_path / "one" / "report.json").read_text())["num_bags"] == 5
