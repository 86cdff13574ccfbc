"""Normal Guidance on the published semi-synthetic set of 10,000 bags, with the published optimizer.

Rows of a batch are packed without padding, and networks that differ only in their loss read each batch together, in one
product: in bfloat16 on a CPU that has instructions for it, else in float32. The networks of a seed are tested, and
added to the table, as soon as they are trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.lesions.measures import scan_auroc
from experiments.semi_synthetic.protocol import read_test_set
from experiments.workflows import ROOT
from monai_mil_ext.apps.study import Run, StudyRunner, collect_provenance
from monai_mil_ext.data import ShiftedMeanDataset
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.metrics import localization
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.utils import atomic_path, load_json, write_json

from .settings import read_settings
from .statements import Statement
from .table import claim_row, variants_result

__all__ = ["PackedABMIL", "claim_rows", "run_all", "statements", "train"]

TRAININGS = {"mean": ("mean",), "guided": ("ABMIL", "ABMIL + NG")}
METHODS = tuple(chain.from_iterable(TRAININGS.values()))
START = "10,000 semi-synthetic bags: "  # of each claim
SAVED = 10  # epochs between two checkpoints
NOTE = "10,000 bags for training, 2,500 for validation, 1,000 for the test; means over the finished seeds."
AGAIN = "claims: Normal Guidance with 10,000 bags"


class Answer(NamedTuple):
    """Logits (B,), scores (B, N, 1) and mask (B, N) of a batch of bags."""

    logits: Tensor
    scores: Tensor
    mask: Tensor


class PackedABMIL(nn.Module):
    r"""ABMIL of the paper, several networks that read the rows of several bags together.

    The classifier is linear, so that the logit of the pooled features is the pooled logit of the features,
    :math:`w \cdot \sum_n a_n x_n = \sum_n a_n \, w \cdot x_n`: rows of features are read, never pooled.

    Args:
        in_features: number F of features.
        seed: seed of the weights, the same for each network.
        methods: a name for each network; ``"mean"`` pools evenly.
    """

    def __init__(self, in_features: int, seed: int, methods: Sequence[str]) -> None:
        super().__init__()
        self.methods = tuple(methods)
        self.nets = nn.ModuleList()
        for _ in methods:
            torch.manual_seed(seed)
            self.nets.append(ABMIL(in_features, 1, gated=False))

    def forward(self, rows: Tensor, sizes: Tensor) -> list[Answer]:
        """Answer bags with rows (sum of sizes, F), by each network."""
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        logits = _multiply(rows, torch.cat([net.classify.weight for net in self.nets]))
        scores = self._score(rows) if "mean" not in self.methods else torch.zeros_like(logits)
        return [self._pool(net, logits[:, number], scores[:, number], mask) for number, net in enumerate(self.nets)]

    @staticmethod
    def _pool(net: nn.Module, logits: Tensor, scores: Tensor, mask: Tensor) -> Answer:
        padded_logits, padded_scores = (
            values.new_zeros(mask.shape).masked_scatter(mask, values)[..., None] for values in (logits, scores)
        )
        pooled = (masked_softmax(padded_scores, mask) * padded_logits).sum((1, 2))
        return Answer(pooled + net.classify.bias, padded_scores, mask)

    def _score(self, rows: Tensor) -> Tensor:
        """Score rows by each network, with the units that the L1 penalty left it.

        A unit whose weights are all zero adds nothing and has no gradient.
        """
        layers = [(net.attend.value, net.attend.score) for net in self.nets]
        units = [
            (hidden.weight.any(1) | (hidden.bias != 0) | (last.weight[0] != 0)).nonzero()[:, 0]
            for hidden, last in layers
        ]
        weight = torch.cat([hidden.weight[kept] for (hidden, _), kept in zip(layers, units, strict=True)])
        bias = torch.cat([hidden.bias[kept] for (hidden, _), kept in zip(layers, units, strict=True)])
        of_units = (_multiply(rows, weight) + bias).tanh_().split([len(kept) for kept in units], 1)
        scores = [
            functional.linear(values, last.weight[:, kept], last.bias)
            for values, (_, last), kept in zip(of_units, layers, units, strict=True)
        ]
        return torch.cat(scores, 1)


def _multiply(rows: Tensor, weight: Tensor) -> Tensor:
    """Multiply in the precision of the rows, and return float32 or wider."""
    product = functional.linear(rows, weight.to(rows.dtype))
    return product.float() if rows.dtype == torch.bfloat16 else product


def batches(bags: ShiftedMeanDataset, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield rows, sizes and labels of whole batches of bags in an order."""
    for part in order.split(size):
        spans = [(int(bags.offsets[i]), int(bags.lengths[i])) for i in part]
        rows = [bags.instances[start : start + size] for start, size in spans]
        yield torch.cat(rows), bags.lengths[part], bags.labels[part].to(torch.get_default_dtype())


def load(num_bags: int, seed: int, methods: Sequence[str], in_features: int = 768) -> ShiftedMeanDataset:
    """Draw bags; those of ``"mean"`` are their means, computed once in float32."""
    bags = ShiftedMeanDataset(num_bags, seed, in_features=in_features)
    if "mean" in methods:
        bags.instances = torch.segment_reduce(bags.instances, "mean", lengths=bags.lengths)
        bags.lengths, bags.offsets = torch.ones(num_bags, dtype=torch.int64), torch.arange(num_bags)
    elif torch.cpu._is_avx512_bf16_supported():
        bags.instances = bags.instances.bfloat16()
    return bags


def train(run: Run, folder: Path) -> dict[str, Any]:
    """Train the networks of a seed, and continue from the checkpoint of a stopped training.

    Returns:
        Epoch, validation and training AUROC of the weights of each network: the best validation among the epochs that
        classify the training part better.
    """
    options = run.settings
    seed, methods = options["seed"], options["methods"]
    bags, val = (load(options[name], seed + i, methods) for i, name in enumerate(("num_train", "num_val")))
    nets = PackedABMIL(bags.instances.shape[1], seed, methods)
    optimizers = _optimizers(nets, options)
    state: dict[str, Any] = {"epoch": 0, "best": {method: {"val_auroc": -1.0} for method in methods}, "weights": {}}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        nets.load_state_dict(state["nets"])
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
    for epoch in range(state["epoch"] + 1, options["epochs"] + 1):
        found = zip(methods, nets.nets, _epoch(nets, optimizers, bags, options, epoch), _auroc(nets, val), strict=True)
        for method, net, train_auroc, val_auroc in found:
            if train_auroc > val_auroc > state["best"][method]["val_auroc"]:
                state["best"][method] = {"epoch": epoch, "val_auroc": val_auroc, "train_auroc": train_auroc}
                state["weights"][method] = {name: value.clone() for name, value in net.state_dict().items()}
        if epoch % SAVED == 0 or epoch == options["epochs"]:
            optimizers_state = [optimizer.state_dict() for optimizer in optimizers]
            state |= {"epoch": epoch, "nets": nets.state_dict(), "optimizers": optimizers_state}
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
    return dict(state["best"])


def _optimizers(nets: PackedABMIL, options: dict[str, Any]) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(net.parameters(), options["learning_rate"], options["momentum"]) for net in nets.nets]


def _epoch(
    nets: PackedABMIL,
    optimizers: Sequence[torch.optim.Optimizer],
    bags: ShiftedMeanDataset,
    options: dict[str, Any],
    epoch: int,
) -> list[float]:
    """Train for one epoch, in an order that the epoch determines, and return the AUROC of each network."""
    order = torch.randperm(len(bags), generator=torch.Generator().manual_seed(1000 * bags.seed + epoch))
    size = options["batch_size"]
    order = order[: max(size, len(order) // size * size)]  # the last, smaller batch is dropped
    guide, answers = NormalGuidanceLoss(), []
    for rows, sizes, labels in batches(bags, order, size):
        of_nets = nets(rows, sizes)
        losses = [functional.binary_cross_entropy_with_logits(of.logits, labels) for of in of_nets]
        guides = [guide(of.scores, of.mask) for of, name in zip(of_nets, nets.methods, strict=True) if "NG" in name]
        nets.zero_grad()
        torch.stack(losses + guides).sum().backward()
        for net, optimizer in zip(nets.nets, optimizers, strict=True):
            nn.utils.clip_grad_norm_(net.parameters(), options["gradient_clip"])
            optimizer.step()
            _shrink(net, options["learning_rate"] * options["l1"])
        answers.append(torch.stack([of.logits.detach() for of in of_nets]))
    return _aurocs(bags.labels[order], answers)


@torch.no_grad()
def _shrink(net: nn.Module, amount: float) -> None:
    """Move all parameters toward zero, the proximal step of an L1 penalty."""
    for weight in net.parameters():
        weight.copy_(functional.softshrink(weight, amount))


@torch.no_grad()
def _auroc(nets: PackedABMIL, bags: ShiftedMeanDataset) -> list[float]:
    parts = [nets(rows, sizes) for rows, sizes, _ in batches(bags, torch.arange(len(bags)), 64)]
    return _aurocs(bags.labels, [torch.stack([of.logits for of in of_nets]) for of_nets in parts])


def _aurocs(labels: Tensor, answers: Sequence[Tensor]) -> list[float]:
    return [scan_auroc(labels.numpy(), logits.numpy()) for logits in torch.cat([*answers], 1)]


def statements() -> list[Statement]:
    """Return the claims that this set can test."""
    guided = ("ABMIL + NG",)
    slices, scans = "slice AUROC .546 to .541", "bag AUROC .752 to .751"
    return [
        Statement("NG", f"{START}slices of ABMIL are ranked no worse", slices, "instance_auroc", guided, ("ABMIL",), 0),
        Statement("NG", f"{START}keeps the bag AUROC of ABMIL", "no loss", "bag_auroc", guided, ("ABMIL",), 0),
        Statement("NG", f"{START}ABMIL classifies like the mean", scans, "bag_auroc", ("ABMIL",), ("mean",), 0),
    ]


def run_all(folder: Path, file: Path) -> None:
    """Train and test the networks of each seed that has no answers in a file, and write them to it.

    Args:
        folder: folder of the trainings.
        file: JSON file of the table and of the answers; those of a seed are added when it is finished.
    """
    settings = dict(read_settings()["large"])
    seeds = settings.pop("seeds")
    runner = StudyRunner(folder, train, threads=1)
    known = _read(file)
    for index, seed in enumerate(seeds, 1):
        if str(seed) in known["answers"]:
            continue
        runs = [
            Run(f"large/{name}/seed_{seed}", {**settings, "methods": list(methods), "seed": seed})
            for name, methods in TRAININGS.items()
        ]
        records = runner.run_all(runs)
        bags = read_test_set("published", index, ", ".join(METHODS), AGAIN)
        columns: dict[str, Any] = {"label": bags.labels.tolist()}
        for run, record in zip(runs, records, strict=True):
            known["cpu_seconds"] += record["cpu_seconds"]
            columns |= answer(runner.run_folder(run), run.settings, bags)
            known["trainings"] |= {f"{method}, {seed}": record[method] for method in run.settings["methods"]}
        known["answers"][str(seed)] = columns
        table = variants_result(METHODS, read_answers(known), NOTE, len(seeds))
        origin = collect_provenance("scripts/reproduce claims --part large", seeds, threads=1, repository=ROOT)
        write_json(file, {**origin, **table, **known})


def _read(file: Path) -> dict[str, Any]:
    content = load_json(file) if file.exists() else {}
    defaults: dict[str, Any] = {"cpu_seconds": 0.0, "trainings": {}, "answers": {}}
    return {key: content.get(key, value) for key, value in defaults.items()}


@torch.no_grad()
def answer(folder: Path, options: Mapping[str, Any], bags: ShiftedMeanDataset) -> dict[str, dict[str, list[Any]]]:
    """Answer a test set by the chosen weights of each network of a training.

    Returns:
        Of each method the ``probability`` of each bag, and the ``instance_auroc`` of its scores, None without a shift.

    Raises:
        RuntimeError: if no epoch of a network could be chosen.
    """
    chosen = torch.load(folder / "checkpoint.pt", weights_only=True)["weights"]
    columns = {}
    for method in options["methods"]:
        if method not in chosen:
            raise RuntimeError(f"{method} must classify the training part better in some epoch, but never did.")
        nets = PackedABMIL(bags.instances.shape[1], options["seed"], [method])
        nets.nets[0].load_state_dict(chosen[method])
        probability, values = [], []
        for number, (rows, sizes, labels) in enumerate(batches(bags, torch.arange(len(bags)), 1)):
            (of_bag,) = nets(rows, sizes)
            probability.append(round(float(of_bag.logits.sigmoid()), 6))
            shifted = bags.instance_labels[int(bags.offsets[number]) :][: int(sizes[0])]
            found = localization(of_bag.scores.flatten(), shifted)["auroc"] if labels[0] else None
            values.append(None if found is None else round(float(found), 6))
        columns[method] = {"probability": probability, "instance_auroc": values}
    return columns


def read_answers(content: Mapping[str, Any]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return the answers in a written file as rows, by method and seed."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {method: {} for method in METHODS}
    for seed, columns in content["answers"].items():
        for method in METHODS:
            values = zip(columns["label"], *columns[method].values(), strict=True)
            found[method][int(seed)] = [
                {"label": label, "probability": probability} | ({} if auroc is None else {"instance_auroc": auroc})
                for label, probability, auroc in values
            ]
    return found


def claim_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of the claims about 10,000 bags, of the seeds in a file."""
    answers = read_answers(_read(file))
    return [claim_row(statement, answers) for statement in statements()]
