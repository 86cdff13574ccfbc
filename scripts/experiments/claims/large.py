"""Normal Guidance on the published semi-synthetic set of 10,000 bags, with the published optimizer.

Rows of a batch are packed without padding; features are in bfloat16, and so are the products with them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.lesions.measures import scan_auroc
from experiments.semi_synthetic.protocol import read_test_set
from monai_mil_ext.apps.study import Run, StudyRunner
from monai_mil_ext.data import ShiftedMeanDataset
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.metrics import localization
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.utils import atomic_path, load_json, write_json

from .settings import read_settings
from .verdicts import NOT_RUN

__all__ = ["PackedABMIL", "claim_rows", "run_all", "train"]

METHODS = ("mean", "ABMIL", "ABMIL + NG")
SAVED = 10  # epochs between two checkpoints
AGAIN = "claims: Normal Guidance with 10,000 bags"


class PackedABMIL(nn.Module):
    r"""ABMIL of the paper on the rows of several bags; pools evenly if ``even``.

    The classifier is linear, so that the logit of the pooled features is the pooled logit of the features,
    :math:`w \cdot \sum_n a_n x_n = \sum_n a_n \, w \cdot x_n`: each row of features is read once, in one product.

    Args:
        in_features: number F of features.
        even: whether all weights are equal.
    """

    def __init__(self, in_features: int, even: bool = False) -> None:
        super().__init__()
        self.net = ABMIL(in_features, 1, gated=False)
        self.even = even

    def forward(self, rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits (B,), scores (B, N, 1) and mask (B, N) of rows (sum of sizes, F)."""
        hidden, last, classify = self.net.attend.value, self.net.attend.score, self.net.classify
        if self.even:
            logits = rows @ classify.weight.T.to(rows.dtype)
            of_rows = torch.zeros_like(logits)
        else:
            products = rows @ torch.cat([hidden.weight, classify.weight]).T.to(rows.dtype)
            attended, logits = products.split([len(hidden.weight), 1], 1)
            attended = torch.tanh(attended + hidden.bias.to(rows.dtype))
            of_rows = attended @ last.weight.T.to(rows.dtype) + last.bias
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        scores, padded = (mask.new_zeros(mask.shape, dtype=torch.float32) for _ in range(2))
        scores = scores.masked_scatter(mask, of_rows.float())[..., None]
        padded = padded.masked_scatter(mask, logits.float())[..., None]
        return (masked_softmax(scores, mask) * padded).sum((1, 2)) + classify.bias, scores, mask


def batches(bags: ShiftedMeanDataset, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield rows, sizes and labels of whole batches of bags in an order."""
    for part in order.split(size):
        spans = [(int(bags.offsets[i]), int(bags.lengths[i])) for i in part]
        yield torch.cat([bags.instances[a : a + n] for a, n in spans]), bags.lengths[part], bags.labels[part].float()


def load(num_bags: int, seed: int, method: str, in_features: int = 768) -> ShiftedMeanDataset:
    """Draw bags in bfloat16; those of ``"mean"`` are their means, computed once, in float32."""
    bags = ShiftedMeanDataset(num_bags, seed, in_features=in_features)
    if method == "mean":
        bags.instances = torch.segment_reduce(bags.instances, "mean", lengths=bags.lengths)
        bags.lengths, bags.offsets = torch.ones(num_bags, dtype=torch.int64), torch.arange(num_bags)
    else:
        bags.instances = bags.instances.bfloat16()
    return bags


def train(run: Run, folder: Path) -> dict[str, Any]:
    """Train one method on one set, and continue from the checkpoint of a stopped training.

    Returns:
        Epoch, validation and training AUROC of the weights: the best validation among the epochs that classify the
        training part better.
    """
    options = run.settings
    seed, method = options["seed"], options["method"]
    torch.manual_seed(seed)
    bags, val = (load(options[name], seed + i, method) for i, name in enumerate(("num_train", "num_val")))
    net = PackedABMIL(bags.instances.shape[1], method == "mean")
    optimizer = torch.optim.SGD(net.parameters(), options["learning_rate"], options["momentum"])
    state: dict[str, Any] = {"epoch": 0, "best": {"val_auroc": -1.0}}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"] + 1, options["epochs"] + 1):
        train_auroc = _epoch(net, optimizer, bags, options, epoch, NormalGuidanceLoss() if "NG" in method else None)
        val_auroc = _auroc(net, val)
        if train_auroc > val_auroc > state["best"]["val_auroc"]:
            state["best"] = {"epoch": epoch, "val_auroc": val_auroc, "train_auroc": train_auroc}
            state["weights"] = {name: value.clone() for name, value in net.state_dict().items()}
        if epoch % SAVED == 0 or epoch == options["epochs"]:
            state |= {"epoch": epoch, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
    return dict(state["best"])


def _epoch(
    net: PackedABMIL,
    optimizer: torch.optim.Optimizer,
    bags: ShiftedMeanDataset,
    options: dict[str, Any],
    epoch: int,
    guide: NormalGuidanceLoss | None,
) -> float:
    """Train for one epoch, in an order that the epoch determines, and return the AUROC of its answers."""
    order = torch.randperm(len(bags), generator=torch.Generator().manual_seed(1000 * bags.seed + epoch))
    size = options["batch_size"]
    order = order[: max(size, len(order) // size * size)]  # the last, smaller batch is dropped
    answers = []
    for rows, sizes, labels in batches(bags, order, size):
        logits, scores, mask = net(rows, sizes)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        (loss if guide is None else loss + guide(scores, mask)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), options["gradient_clip"])
        optimizer.step()
        _shrink(net, options["learning_rate"] * options["l1"])
        answers.append(logits.detach())
    return scan_auroc(bags.labels[order].numpy(), torch.cat(answers).numpy())


@torch.no_grad()
def _shrink(net: nn.Module, amount: float) -> None:
    """Move all parameters toward zero, the proximal step of an L1 penalty."""
    for weight in net.parameters():
        weight.copy_(functional.softshrink(weight, amount))


@torch.no_grad()
def _auroc(net: PackedABMIL, bags: ShiftedMeanDataset) -> float:
    logits = [net(rows, sizes)[0] for rows, sizes, _ in batches(bags, torch.arange(len(bags)), 250)]
    return scan_auroc(bags.labels.numpy(), torch.cat(logits).numpy())


def runs() -> list[Run]:
    """List the trainings."""
    options = {key: value for key, value in read_settings()["large"].items() if key != "seeds"}
    seeds = read_settings()["large"]["seeds"]
    return [
        Run(f"large/{method}/seed_{seed}", {**options, "method": method, "seed": seed})
        for seed in seeds
        for method in METHODS
    ]


def run_all(folder: Path, rehearse: int | None = None) -> None:
    """Train all that is not finished and test it, or measure the time of some epochs of one method."""
    if rehearse:
        _rehearse(folder, rehearse)
        return
    runner = StudyRunner(folder, train, threads=1)
    runner.run_all(runs())
    results: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for index, seed in enumerate(read_settings()["large"]["seeds"], 1):
        bags = read_test_set("published", index, ", ".join(METHODS), AGAIN)
        for method in METHODS:
            path = runner.run_folder(Run(f"large/{method}/seed_{seed}", {})) / "checkpoint.pt"
            net = PackedABMIL(bags.instances.shape[1], method == "mean")
            net.load_state_dict(torch.load(path, weights_only=True)["weights"])
            results[method].append(test(net, bags))
    write_json(folder / "large" / "results.json", results)


@torch.no_grad()
def test(net: PackedABMIL, bags: ShiftedMeanDataset) -> dict[str, float]:
    """Return scan and slice AUROC of a network on a test set."""
    values = []
    for number in range(len(bags)):
        rows, sizes, _ = next(batches(bags, torch.tensor([number]), 1))
        if bags.labels[number]:
            labels = bags.instance_labels[int(bags.offsets[number]) :][: int(sizes[0])]
            values.append(localization(net(rows, sizes)[1].flatten(), labels)["auroc"])
    return {"bag_auroc": _auroc(net, bags), "instance_auroc": float(np.mean(values))}


def _rehearse(folder: Path, epochs: int) -> None:
    torch.set_num_threads(1)
    options = {**read_settings()["large"], "epochs": epochs}
    seed, times = options["seeds"][0], {}
    for method in METHODS:
        bags, val = (load(options[name], seed + i, method) for i, name in enumerate(("num_train", "num_val")))
        net = PackedABMIL(bags.instances.shape[1], method == "mean")
        optimizer = torch.optim.SGD(net.parameters(), options["learning_rate"], options["momentum"])
        start = time.process_time()
        for epoch in range(epochs):
            _epoch(net, optimizer, bags, options, epoch, NormalGuidanceLoss() if "NG" in method else None)
            _auroc(net, val)
        times[method] = (time.process_time() - start) / epochs
        print(f"{method}: {times[method]:.1f} s of a core an epoch", flush=True)
    write_json(folder / "large" / "rehearsal.json", {"epochs": epochs, "cpu_seconds_per_epoch": times})


def claim_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the claims about 10,000 bags, of finished trainings or with the measured time."""
    results, rehearsal = folder / "large" / "results.json", folder / "large" / "rehearsal.json"
    row = {"paper": "NG", "claim": "10,000 semi-synthetic bags: slices of ABMIL change little", "by_seed": "-"}
    row |= {"published": "slice AUROC .546 to .541", "verdict": NOT_RUN}
    if results.exists():
        found = load_json(results)
        values = [[of["instance_auroc"] for of in found[method]] for method in ("ABMIL + NG", "ABMIL")]
        differences = [a - b for a, b in zip(*values, strict=True)]
        ours = f"slice AUROC {np.mean(values[0]):.3f} for {np.mean(values[1]):.3f}: {np.mean(differences):+.3f}"
        return [{**row, "ours": ours, "by_seed": ", ".join(f"{d:+.3f}" for d in differences), "verdict": "shown only"}]
    if not rehearsal.exists():
        return [{**row, "ours": NOT_RUN}]
    known, options = load_json(rehearsal), read_settings()["large"]
    seconds = sum(known["cpu_seconds_per_epoch"].values()) * options["epochs"] * len(options["seeds"])
    ours = f"not run yet: {seconds / 3600:.1f} core-hours, by {known['epochs']} epoch(s) of each network"
    return [{**row, "ours": ours}]
