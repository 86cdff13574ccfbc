"""Order of labeling on the lesion benchmark: ``scripts/reproduce active_learning``.

Starting from few labels, a strategy chooses the scans to label next, in steps, until the budget is spent. Strategies
start from the same scans and the same weights. Labels come from the training parts of the cohorts with one lesion, and
networks are measured on the validation parts of all seeds; no test set is read. A training has a fixed number of steps,
since a budget this small leaves no labels for choosing an epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from experiments.lesions.features import prepare_scans, scan_items
from experiments.lesions.settings import Protocol, read_protocol
from experiments.lesions.training import load_scan
from experiments.workflows import RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.data.features.fingerprints import fingerprint
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.utils import write_json

__all__ = ["STRATEGIES", "Pool", "Settings", "auroc", "farthest_first", "label_in_order", "main", "table_rows"]

COHORT = "one"
HEADS = {"auroc": "AUROC", "less_random": "less random", "positives": "share with a lesion among the labels"}
NOTE = (
    "ABMIL on {components} principal components, trained from {budget} labels, {start} drawn at random and the others "
    "in steps of {step}; {seeds} pools of {pool} scans, {repeats} starts each; measured on {scans} validation scans. "
    "In brackets the 95 % interval by drawing pools and scans; *less random* is paired."
)
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Settings of the comparison.

    Attributes:
        budget: number of labels.
        start: number of labels that are drawn at random, at least one of each class.
        step: number of scans that are chosen at a time.
        repeats: number of starts for each pool.
        steps: number of steps of a training.
        learning_rate: learning rate of AdamW.
        hidden_size: hidden size of ABMIL.
        components: number of principal components of the slices of a pool, to which features are reduced.
    """

    budget: int = 20
    start: int = 5
    step: int = 5
    repeats: int = 3
    steps: int = 100
    learning_rate: float = 0.001
    hidden_size: int = 128
    components: int = 64


class Pool:
    """Scans without labels, of which some get theirs.

    Args:
        bags: standardized features (N, F) of each scan.
        labels: label of each scan, 0 or 1.
    """

    def __init__(self, bags: Sequence[Tensor], labels: Sequence[int]) -> None:
        self.bags, self.labels = list(bags), np.array(labels)
        self.means = torch.stack([bag.mean(0) for bag in self.bags]).numpy()

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Draw scans until both classes are among them."""
        while True:
            drawn = rng.choice(len(self.labels), count, replace=False)
            if 0 < self.labels[drawn].sum() < count:
                return [int(number) for number in drawn]

    def train(self, labeled: Sequence[int], settings: Settings, seed: int) -> ABMIL:
        """Train ABMIL on the labeled scans."""
        torch.manual_seed(seed)
        net = ABMIL(self.bags[0].shape[1], 1, hidden_size=settings.hidden_size)
        images, mask = pad([self.bags[i] for i in labeled])
        target = torch.tensor(self.labels[list(labeled)]).float()
        optimizer = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=0.01, fused=True)
        for _ in range(settings.steps):
            optimizer.zero_grad()
            logits = net.forward_bag(images, mask).logits[:, 0]
            torch.nn.functional.binary_cross_entropy_with_logits(logits, target).backward()
            optimizer.step()
        return net.eval()


def pad(bags: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return bags as one batch (B, N, F), and the mask (B, N) of their instances."""
    images = torch.nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    lengths = torch.tensor([len(bag) for bag in bags])
    return images, torch.arange(images.shape[1]) < lengths[:, None]


@torch.inference_mode()
def predict(net: ABMIL, bags: Sequence[Tensor]) -> Scores:
    """Return the probability of a lesion in each scan."""
    return np.array([float(net.forward_bag(bag[None]).logits.sigmoid()) for bag in bags])


def farthest_first(points: Scores, labeled: Sequence[int], candidates: Sequence[int], count: int) -> list[int]:
    """Choose candidates one after the other, each the farthest from all that are labeled or chosen (core-set).

    Sener, Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, algorithm 1.
    """
    rest, chosen = list(candidates), list[int]()
    distance = np.min([np.linalg.norm(points[rest] - points[i], axis=1) for i in labeled], axis=0)
    for _ in range(count):
        best = int(distance.argmax())
        chosen.append(rest[best])
        distance = np.minimum(distance, np.linalg.norm(points[rest] - points[rest[best]], axis=1))
        distance[best] = -1
    return chosen


def _uncertain(probability: Scores, candidates: Sequence[int], count: int) -> list[int]:
    return [candidates[i] for i in np.argsort(np.abs(probability - 0.5), kind="stable")[:count]]


def choose_random(pool: Pool, labeled: Sequence[int], rest: list[int], count: int, net: Any, rng: Any) -> list[int]:
    """Choose at random."""
    return [rest[i] for i in rng.choice(len(rest), count, replace=False)]


def choose_uncertain(pool: Pool, labeled: Sequence[int], rest: list[int], count: int, net: Any, rng: Any) -> list[int]:
    """Choose the most uncertain scans."""
    return _uncertain(predict(net(), [pool.bags[i] for i in rest]), rest, count)


def choose_diverse(pool: Pool, labeled: Sequence[int], rest: list[int], count: int, net: Any, rng: Any) -> list[int]:
    """Choose scans whose mean features are far from all that are labeled."""
    return farthest_first(pool.means, labeled, rest, count)


def choose_both(pool: Pool, labeled: Sequence[int], rest: list[int], count: int, net: Any, rng: Any) -> list[int]:
    """Choose diverse scans among four times as many uncertain ones."""
    found = choose_uncertain(pool, labeled, rest, 4 * count, net, rng)
    return farthest_first(pool.means, labeled, found, count)


STRATEGIES: dict[str, Callable[..., list[int]]] = {
    "random": choose_random,
    "uncertainty": choose_uncertain,
    "diversity": choose_diverse,
    "uncertainty and diversity": choose_both,
}


def label_in_order(pool: Pool, strategy: str, settings: Settings, seed: int) -> list[int]:
    """Return the scans that a strategy labels, in this order; the first are those of any other with this seed."""
    rng = np.random.default_rng(seed)
    labeled = pool.draw(settings.start, rng)
    while len(labeled) < settings.budget:
        rest = sorted(set(range(len(pool.bags))) - set(labeled))
        count = min(settings.step, settings.budget - len(labeled))
        known = list(labeled)
        labeled += STRATEGIES[strategy](pool, known, rest, count, lambda k=known: pool.train(k, settings, seed), rng)
    return labeled


def auroc(labels: Scores, scores: Scores) -> float:
    """Return the area under the ROC curve.

    Example:
        >>> auroc(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.4]))
        0.875
    """
    positive = labels.astype(bool)
    count, ranks = int(positive.sum()), rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count)))


def table_rows(
    scores: Mapping[str, Scores], labels: Scores, positives: Mapping[str, float], num_samples: int = 1000
) -> list[dict[str, Any]]:
    """Return a row for each strategy.

    Args:
        scores: probabilities (seeds, repeats, scans) of each strategy.
        labels: labels (scans,).
        positives: share of positive labels of each strategy.
        num_samples: number of bootstrap samples of pools and scans.
    """
    rng = np.random.default_rng(0)
    seeds = len(next(iter(scores.values())))
    draws = [(rng.integers(seeds, size=seeds), rng.integers(len(labels), size=len(labels))) for _ in range(num_samples)]
    draws = [(s, k) for s, k in draws if 0 < labels[k].sum() < len(labels)]
    values = {name: _mean_auroc(own, labels) for name, own in scores.items()}
    drawn = {name: np.array([_mean_auroc(own[s][..., k], labels[k]) for s, k in draws]) for name, own in scores.items()}
    rows = []
    for name in scores:
        row = {"auroc": values[name], "positives": positives[name]}
        interval = {"auroc": _interval(drawn[name])}
        if name != "random":
            row["less_random"] = values[name] - values["random"]
            interval["less_random"] = _interval(drawn[name] - drawn["random"])
        rows.append({"name": name, "values": row, "interval_95": interval})
    return rows


def _mean_auroc(scores: Scores, labels: Scores) -> float:
    return float(np.mean([auroc(labels, own) for own in scores.reshape(-1, scores.shape[-1])]))


def _interval(values: Scores) -> list[float]:
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def _load(protocol: Protocol, seed: int, split: str, data: Path) -> tuple[list[Tensor], list[int]]:
    items = scan_items([scan for scan in protocol.cohort(COHORT, seed) if scan.split == split], data)
    bags = [torch.as_tensor(load_scan(item["image"])["image"]).float() for item in items]
    return bags, [item["label"][0] for item in items]


def components(slices: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """Return a function that turns features (N, F) into principal components (N, count) of about variance 1.

    Args:
        slices: features of all slices of a pool; no label is used.
        count: number of components.
    """
    mean = slices.mean(0)
    torch.manual_seed(0)
    _, values, axes = torch.pca_lowrank(slices - mean, count, center=False)
    scale = values / len(slices) ** 0.5
    return lambda bag: (bag - mean) @ axes / scale


def compare(protocol: Protocol, settings: Settings, data: Path, strategies: Sequence[str]) -> dict[str, Any]:
    """Run all strategies on the pools of all seeds, and return rows and note."""
    held_out = [_load(protocol, seed, "val", data) for seed in protocol.seeds]
    labels = np.array([label for _, part in held_out for label in part])
    scores: dict[str, list[Any]] = {name: [] for name in strategies}
    shares: dict[str, list[float]] = {name: [] for name in strategies}
    for seed in protocol.seeds:
        bags, own = _load(protocol, seed, "train", data)
        reduce = components(torch.cat(bags), settings.components)
        pool = Pool([reduce(bag) for bag in bags], own)
        shown = [reduce(bag) for part, _ in held_out for bag in part]
        for name in strategies:
            found = []
            for repeat in range(settings.repeats):
                start = 100 * seed + repeat
                labeled = label_in_order(pool, name, settings, start)
                shares[name].append(float(pool.labels[labeled].mean()))
                found.append(predict(pool.train(labeled, settings, start), shown))
            scores[name].append(found)
            print(f"seed {seed}, {name}: AUROC {_mean_auroc(np.array(found), labels):.3f}", flush=True)
    rows = table_rows(
        {name: np.array(own) for name, own in scores.items()}, labels, {n: float(np.mean(s)) for n, s in shares.items()}
    )
    counts = {"seeds": len(protocol.seeds), "pool": len(pool.bags), "scans": len(labels)}
    note = NOTE.format(**counts, **asdict(settings))
    return {"settings": asdict(settings), "heads": HEADS, "note": note, "rows": rows}


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce active_learning", description=__doc__)
    parser.add_argument("--jobs", type=int, help="number of processes that draw and encode scans")
    args = parser.parse_args(words)
    protocol, start = read_protocol(), time.perf_counter()
    data = RUNS / "lesions" / f"scans_{fingerprint(asdict(protocol.drawing))[:8]}"
    if not (data / "features.json").exists():
        scans = [scan for seed in protocol.seeds for scan in protocol.cohort(COHORT, seed)]
        prepare_scans(scans, data, protocol.drawing, args.jobs)
    found = compare(protocol, Settings(), data, list(STRATEGIES))
    seconds = time.perf_counter() - start
    known = collect_provenance("scripts/reproduce active_learning", protocol.seeds, seconds=seconds, repository=ROOT)
    write_json(RESULTS / "active_learning.json", {**known, **found})
