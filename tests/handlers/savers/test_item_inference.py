"""Tests of inference by workers of Dask: results and table are those of one process."""

import csv
from types import SimpleNamespace

import distributed
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, default_prepare_batch
from torch import nn

from monai_mil_ext.handlers import ScanBatchInference, ScanResultsSaver
from tests.handlers.savers.items import scan
from tests.utils.dask_clusters import cluster


class Weights(nn.Module):
    """Network whose weight is loaded when a run starts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.weight * x


class Loader:
    """Handler that loads the weight."""

    def __init__(self, network):
        self.network = network

    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine):
        with torch.no_grad():
            self.network.weight.fill_(2)


def load(item):
    """Load an item."""
    if item["case_id"] == "broken":
        return {**item, "image": torch.zeros(1), "status": "unreadable: no scan"}
    return {**item, "image": torch.tensor([0.375, 0.125])}


def lose(batch, *args, **kwargs):
    """Raise what Dask raises when each process of the item c3 was killed."""
    if batch["case_id"] == ["c3"]:
        raise distributed.KilledWorker("key", SimpleNamespace(address="tcp://lost"), 3)
    return default_prepare_batch(batch, *args, **kwargs)


def present(item):
    """Return what a saver of scans writes, with the output of the network, which has doubled the image."""
    return {**scan(case_id=item["case_id"]), **item}


def infer(tmp_path, name, cases, prepare_batch=default_prepare_batch, **options):
    """Infer cases, and return the rows of the table without the time, and the files of the cases."""
    (tmp_path / name).mkdir()
    items = [{"case_id": case} for case in cases]
    results = ScanBatchInference(ScanResultsSaver(tmp_path / name, pictures=[], settings="a"), items)
    network = Weights()
    loader = DataLoader(Dataset(results.pending, load), batch_size=1)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        loader,
        network,
        prepare_batch=prepare_batch,
        postprocessing=present,
        val_handlers=[Loader(network), results],
    )
    try:
        results.run(evaluator, **options, postprocessing=present)
    except RuntimeError as error:
        assert "every scan must get a prediction" in str(error)  # noqa: PT017 - not always raised
    with (tmp_path / name / "results.csv").open() as file:
        rows = {row.pop("case_id"): row | {"seconds": row.get("seconds", "") != ""} for row in csv.DictReader(file)}
    return rows, {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).glob("*/*.json")}


def test_workers_write_the_results_and_the_table_of_one_process(tmp_path):
    cases = ["c1", "broken", "c4"]
    serial = infer(tmp_path, "serial", cases)
    with cluster({}, {}) as address:
        assert infer(tmp_path, "dask", cases, scheduler=address) == serial
    assert serial[0]["broken"]["status"] == "unreadable: no scan"
    assert serial[0]["c4"]["probability_1"] == "0.25"
    assert {path.split("/")[0] for path in serial[1]} == {"c1", "c4"}


def test_an_item_that_loses_each_worker_gets_a_row(tmp_path):
    serial = infer(tmp_path, "serial", ["c1", "c4"])
    with cluster({}, {}) as address:
        rows, files = infer(tmp_path, "dask", ["c1", "c3", "c4"], lose, scheduler=address)
    assert rows.pop("c3")["status"] == "failed: the process was killed each time, perhaps for lack of memory"
    assert (rows, files) == serial
