"""Training by one process and by two, for comparison."""

import datetime
import os
import sys

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents
from torch import distributed

from monai_mil_ext.data import BagBatchSampler
from tests.bundles.scripts_of import BUNDLES

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
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
WAIT = datetime.timedelta(minutes=3)  # for one another; a process that waits for ever would be no failure


class BagsOfBoth:
    """Batches of two processes, joined step by step, for a single one."""

    def __init__(self, sampler):
        kept = {"max_bags": sampler.max_bags, "cost": "packed" if sampler.packed else "padded", "seed": sampler.seed}
        self.samplers = [
            BagBatchSampler(sampler.sizes, sampler.max_instances, **kept, num_replicas=2, rank=rank) for rank in (0, 1)
        ]

    def __len__(self):
        return len(self.samplers[0])

    def __iter__(self):
        return iter([first + second for first, second in zip(*self.samplers, strict=True)])


def train(case, data, out, multi, **more):
    """Train in this process, and save losses, metrics of each validation, weights and anchor."""
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
    result = {
        "losses": torch.tensor(losses),
        "metrics": metrics,
        "anchor": anchor,
        "net": get("network_def").state_dict(),
    }
    torch.save(result, f"{out}.pt")
    workflow.finalize()


def two_of(get):
    """Return the sampler of the multi_gpu_train.yaml of scan_mil."""
    data = get("train#dataset").data
    return BagBatchSampler([b["stop"] - b["start"] for b in data], 10**9, get("batch_size"), cost="packed", seed=0)


def work(rank, folder, case, data, backend):
    """Train in one of two processes, with a folder for each."""
    torch.set_num_threads(1)
    os.environ.update(NO_GPU if backend == "gloo" else {})
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    start = distributed.init_process_group
    meet = f"file://{folder}/meet"
    distributed.init_process_group = lambda chosen: (
        chosen == backend and start(chosen, init_method=meet, rank=rank, world_size=2, timeout=WAIT)
    )
    train(case, data, f"{folder}/{rank}", multi=True)
