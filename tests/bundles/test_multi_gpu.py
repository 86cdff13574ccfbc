"""multi_gpu_train.yaml: two processes train as one with the bags of both, write once, and go on after a kill."""

import datetime
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents
from torch import distributed
from torch.testing import assert_close

from monai_mil_ext.data import BagBatchSampler

from .bag_classifier import bags, scripts
from .wsi import SMALL, write_cohort

BUNDLES = Path(__file__).parents[2] / "bundles"
NETS = "monai_mil_ext.networks.nets."
ASMIL = {"_target_": f"{NETS}ASMIL", "in_features": 8, "num_classes": 2, "hidden_size": 16, "token_drop": 0.0}
STEADY = {"network_def": {**ASMIL, "dropout": 0.0}, "anchor": 0.1, "epochs": 10, "learning_rate": 0.05}
# Adam divides by the size of a gradient: it hides a wrong one's, and makes something of the rounding of one that is 0
STEADY |= {"optimizer#_target_": "torch.optim.SGD", "num_folds": 5, "val_fraction": 0.5}
SLIDES = {key: value for key, value in STEADY.items() if key != "network_def"} | {"num_folds": 3, "momentum": 0.9}
SLIDES |= {f"network_def#{key}": value for key, value in {"hidden_size": 16, "token_drop": 0.0, "dropout": 0.0}.items()}
CASES = {  # bundle, configs, overrides
    "equal": ("bag_classifier", ["train"], {**STEADY, "batch_size": 4}),  # two steps an epoch: 4 and 4, 4 and 4
    "unequal": ("bag_classifier", ["train"], {**STEADY, "batch_size": 5}),  # 5 and 5, 5 and 1
    "slides": ("wsi_mil", ["train", "asmil"], {**SLIDES, "batch_size": 3}),
    "slices": ("scan_mil", ["train", "digits"], {"network_def#dropout": 0, "batch_size": 6, "epochs": 1}),
}


BACKENDS = [  # the bundles choose by what they see
    "gloo",
    pytest.param(
        "nccl",
        marks=[pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")],
    ),
]
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
WAIT = datetime.timedelta(minutes=3)  # for one another; a process that waits for ever would be no failure


class BagsOfBoth:
    """Gives one process the batches of two, put together step by step."""

    def __init__(self, sampler):
        kept = {"max_bags": sampler.max_bags, "cost": "packed" if sampler.packed else "padded", "seed": sampler.seed}
        self.samplers = [
            BagBatchSampler(sampler.sizes, sampler.max_instances, **kept, num_replicas=2, rank=rank) for rank in (0, 1)
        ]

    def __len__(self):
        return len(self.samplers[0])

    def __iter__(self):
        return iter([one + other for one, other in zip(*self.samplers, strict=True)])


def train(case, data, out, multi, **more):
    """Train in this process; losses, metrics of each validation, weights, anchor."""
    bundle, configs, overrides = CASES[case]
    os.chdir(BUNDLES / bundle)
    sys.path.insert(0, str(BUNDLES / bundle))
    configs = [configs[0], "multi_gpu_train", *configs[1:]] if multi else configs
    paths = {"dataset_dir": data[bundle], "ckpt_dir": f"{out}/model", "output_dir": f"{out}/eval"}
    workflow = ConfigWorkflow(
        [f"configs/{name}.yaml" for name in configs],
        workflow_type="train",
        logging_file=False,
        val_interval=1,
        **paths,
        **overrides,
        **more,
    )
    workflow.initialize()
    get = workflow.parser.get_parsed_content
    trainer, evaluator = get("train#trainer"), get("validate#evaluator")
    if not multi:
        sampler = BagsOfBoth(trainer.data_loader.batch_sampler if case != "slices" else two_of(get))
        loader = trainer.data_loader
        trainer.data_loader = torch.utils.data.DataLoader(
            loader.dataset, batch_sampler=sampler, collate_fn=loader.collate_fn
        )
        trainer.state.dataloader, trainer.state.epoch_length = trainer.data_loader, len(sampler)
    losses, metrics = [], []
    # BACKWARD_COMPLETED comes when all terms and the share of the process are in the loss
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED, lambda e: losses.append(e.state.output["loss"].item())
    )
    evaluator.add_event_handler(Events.COMPLETED, lambda e: metrics.append(dict(e.state.metrics)))
    workflow.run()
    anchor = get("train#named_handlers#anchor").state_dict() if "anchor" in get("train#named_handlers") else {}
    found = {
        "losses": torch.tensor(losses),
        "metrics": metrics,
        "anchor": anchor,
        "net": get("network_def").state_dict(),
    }
    torch.save(found, f"{out}.pt")
    workflow.finalize()


def two_of(get):
    """The sampler of scan_mil's multi_gpu_train.yaml."""
    data = get("train#dataset").data
    return BagBatchSampler([b["stop"] - b["start"] for b in data], 10**9, get("batch_size"), cost="packed", seed=0)


def work(rank, folder, case, data, backend):
    """One of two processes, with folders of its own."""
    torch.set_num_threads(1)
    os.environ.update(NO_GPU if backend == "gloo" else {})
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    start = distributed.init_process_group
    meet = f"file://{folder}/meet"
    distributed.init_process_group = lambda chosen: (
        chosen == backend and start(chosen, init_method=meet, rank=rank, world_size=2, timeout=WAIT)
    )
    train(case, data, f"{folder}/{rank}", multi=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory, digits):
    """Forty bags and their table; four scans; slides of 18 patients."""
    folder = tmp_path_factory.mktemp("bags")
    scripts("prepare").write_cohort(bags(), folder / "cohort.csv")
    slides = write_cohort(tmp_path_factory.mktemp("slides"))
    return {"bag_classifier": str(folder), "scan_mil": str(digits), "wsi_mil": str(slides)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [pytest.param("equal", marks=pytest.mark.slow), "unequal", "slides", "slices"])
def test_two_processes_train_as_one_with_the_bags_of_both(case, backend, data, tmp_path, monkeypatch):
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.bundles.test_multi_gpu"])
    torch.multiprocessing.start_processes(work, (str(tmp_path), case, data, backend), 2, start_method="forkserver")
    monkeypatch.chdir(tmp_path)  # and so, after it, back to where it was
    monkeypatch.setattr(sys, "path", list(sys.path))
    alone = {"device": "$torch.device('cpu')"} if backend == "gloo" else {}
    train(case, data, str(tmp_path / "one"), multi=False, **alone)
    first, second, one = (torch.load(tmp_path / f"{name}.pt", "cpu", weights_only=True) for name in ("0", "1", "one"))
    assert len(one["losses"]) >= 20
    assert_close((first["losses"] + second["losses"]) / 2, one["losses"], rtol=0, atol=1e-5)
    assert_close(first["net"], second["net"], rtol=0, atol=0)
    assert_close(first["anchor"], second["anchor"], rtol=0, atol=0)
    assert first["metrics"] == second["metrics"]  # of all bags, not of a process's own
    assert_close(first["net"], one["net"], rtol=0, atol=1e-5 if one["anchor"] else 1e-4)
    assert_close(first["anchor"], one["anchor"], rtol=0, atol=1e-5)
    assert_close(first["metrics"], one["metrics"], rtol=0, atol=1e-6)
    weights = torch.load(tmp_path / "0" / "model" / "model.pt", weights_only=True)
    assert weights.keys() == one["net"].keys()  # without the wrapper's prefix: evaluation and inference load it
    assert not (tmp_path / "1").exists()  # the second process writes nothing


KILLED = {  # configs, epochs, overrides
    "scan_mil": (["train", "multi_gpu_train", "digits"], 12, {}),
    "wsi_mil": (["train", "asmil", "multi_gpu_train"], 30, SMALL),
}


def launch(bundle, data, out):
    """Start ``torchrun`` with the words of the page, in a session of its own."""
    configs, epochs, overrides = KILLED[bundle]
    words = ["--standalone", "--nproc_per_node", "2", "--max-restarts", "1", "-m", "monai.bundle", "run"]
    words += ["--config_file", str([f"configs/{name}.yaml" for name in configs])]
    options = {**overrides, "dataset_dir": data, "ckpt_dir": out, "output_dir": out, "epochs": epochs}
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **NO_GPU}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=BUNDLES / bundle,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("bundle", KILLED)
def test_after_the_kill_of_a_process_torchrun_goes_on_and_ends_with_the_same_weights(bundle, data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    last = f"checkpoint_epoch={KILLED[bundle][1]}.pt"
    said, _ = launch(bundle, data[bundle], whole).communicate(timeout=300)
    assert (whole / last).exists(), said
    run = launch(bundle, data[bundle], killed)
    deadline = time.monotonic() + 300
    while not (killed / "checkpoint_epoch=3.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert not (killed / last).exists()
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert "Restored all variables from" in said
    expected, got = (torch.load(out / last, weights_only=True) for out in (whole, killed))
    for state in (expected, got):
        state["parts"] = state["training_state"]["parts"]
        state["draws"] = [process["torch"] for process in state["training_state"]["random"]]
    assert len(got["draws"]) == 2
    for part in ("network", "optimizer", "parts", "draws"):  # dropout, anchor and all
        assert_close(got[part], expected[part], rtol=0, atol=0, msg=lambda m, part=part: f"{part}: {m}")
    assert len(list(killed.glob("events.*"))) == 2  # of TensorBoard: the first process's, before and after
