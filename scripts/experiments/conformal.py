"""Coverage and size of instance sets over random splits of evaluated cases: ``scripts/reproduce conformal``.

It reads the ``instances.csv`` of evaluations (columns ``case_id``, ``instance_label`` and ``attention``), so it runs on
any benchmark: cases of known instance labels that no network was trained on. Each split calibrates with a half of the
cases that have a lesion and counts right sets in the other half. With ``--shift`` the sets of all cases are applied to
those of another anatomy or site.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from experiments.workflows import RESULTS, ROOT
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.metrics import ConformalInstances, set_coverage
from monai_mil_ext.metrics.bootstrap import percentile_interval, resampled_rows
from monai_mil_ext.metrics.conformal.conformal_instances import bag_levels, prefix_levels, quantile_index
from monai_mil_ext.metrics.conformal.site_coverage import LEVEL
from monai_mil_ext.utils import write_json

__all__ = ["Cases", "main", "read_cases", "shift_rows", "size_ratio", "split_means", "split_rows"]

Cases = tuple[list[Tensor], list[Tensor]]  # scores and labels of each case with a positive instance
OPTIONS = [(target, by, alpha) for target in ("any", "all") for by in ("rank", "mass") for alpha in (0.1, 0.05)]
HEADS = {
    "coverage": "coverage",
    "not_below": "splits not below the band",
    "size": "instances in a set",
    "share": "share of the bag",
    "answered": "answered",
}


def read_cases(path: str | os.PathLike[str]) -> Cases:
    """Read the cases of an ``instances.csv`` that have a positive instance."""
    found: dict[str, tuple[list[float], list[int]]] = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores, labels = found.setdefault(row["case_id"], ([], []))
            scores.append(float(row["attention"]))
            labels.append(int(float(row["instance_label"])))
    kept = [(torch.tensor(s, dtype=torch.float64), torch.tensor(y)) for s, y in found.values() if any(y)]
    return [s for s, _ in kept], [y for _, y in kept]


def split_rows(runs: Mapping[str, Sequence[Cases]], splits: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row for each method, target, order and alpha: means over runs and splits.

    Args:
        runs: for each method, the cases of one or more runs, such as seeds.
        splits: number of splits of each run.
        seed: seed of the splits, which are the same for all methods.

    Returns:
        Rows with ``coverage`` and ``expected``, what it is for scores without ties; ``bands``, between which the mean
        over the splits of a run is with a probability of 0.99 (beta-binomial); ``not_below``, the share of splits whose
        count of right sets reaches its 0.025 quantile; mean ``size`` of a set, its ``share`` of the bag, and
        ``answered``, the share of bags whose set is at most half of the bag.
    """
    rows = []
    for target, by, alpha in OPTIONS:
        for name, cases in runs.items():
            if min(len(scores) // 2 for scores, _ in cases) < ConformalInstances(alpha).min_bags:
                continue  # every set would be all instances
            means = [split_means(part, ConformalInstances(alpha, target, by), splits, seed) for part in cases]
            values = {key: float(np.mean([mean[key] for mean in means])) for key in HEADS}
            bands = [mean["band"] for mean in means]
            rows.append(
                {
                    "name": f"{name}, {target}, {by}, {100 * (1 - alpha):g} %",
                    **{"method": name, "target": target, "by": by, "alpha": alpha, "runs": len(means)},
                    "values": values,
                    "expected": float(np.mean([mean["expected"] for mean in means])),
                    "bands": bands,
                    "coverages": [mean["coverage"] for mean in means],
                }
            )
    return rows


def split_means(
    cases: Cases,
    sets: ConformalInstances,
    splits: int = 200,
    seed: int = 0,
    others: Cases | None = None,
) -> dict[str, Any]:
    """Return the means over splits of one run.

    Args:
        cases: scores and labels of each case.
        sets: options of the sets.
        splits: number of splits.
        seed: seed of the splits.
        others: cases of another anatomy or site, which are tested in the place of ``cases``: one for each of them, such
            as the same head with other lesions, so that no calibration has seen the counterpart of a tested case.

    Returns:
        As ``values`` of :py:func:`split_rows`, with ``expected`` and ``band``, and ``shifted``, the share of splits
        that :py:func:`monai_mil_ext.metrics.set_coverage` calls so.
    """
    levels, tested = _levels(cases, sets), _levels(others or cases, sets)
    joined, sizes = _joined((others or cases)[0], sets)
    if len(tested) != len(levels):
        raise ValueError(f"`others` must be as many as `cases`, got {len(tested)} and {len(levels)}.")
    rng, size = np.random.default_rng(seed), len(levels) // 2
    index, count = quantile_index(size, sets.alpha), len(levels) - size
    covered, needed, answered, shares = [], [], [], []
    for _ in range(splits):
        order = rng.permutation(len(levels))
        fit, test = order[:size], order[size:]
        threshold = np.sort(levels[fit])[index - 1]  # as ConformalInstances.fit
        covered.append(int((tested[test] <= threshold).sum()))
        needed.append((joined[test] <= threshold).sum(1))
        shares.append(needed[-1] / sizes[test])
        answered.append(shares[-1] <= sets.max_share)
    exact = stats.betabinom(count, index, size + 1 - index)
    deviation, expected = float(exact.std()) / count / splits**0.5, float(exact.mean()) / count
    return {
        "coverage": float(np.mean(covered)) / count,
        "not_below": float(np.mean(np.array(covered) >= exact.ppf(0.025))),
        "size": float(np.mean(needed)),
        "share": float(np.mean(shares)),
        "answered": float(np.mean(answered)),
        "shifted": float(np.mean(exact.cdf(covered) < LEVEL)),
        "expected": expected,
        "band": [expected - 2.576 * deviation, expected + 2.576 * deviation],
    }


def size_ratio(
    a: Cases, b: Cases, sets: ConformalInstances, num_samples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return how many times as large the sets of ``a`` are as those of ``b``, with the limits of a 95 % interval.

    All cases calibrate; the interval is that of a paired bootstrap over cases.
    """
    sides = [(_levels(cases, sets), _joined(cases[0], sets)[0]) for cases in (a, b)]
    count = len(sides[0][0])
    index = quantile_index(count, sets.alpha)

    def ratio(drawn: Any) -> float:
        sizes = [(joined[drawn] <= np.sort(levels[drawn])[index - 1]).sum(1).mean() for levels, joined in sides]
        return float(sizes[0] / sizes[1])

    samples = [ratio(drawn) for drawn in resampled_rows(count, None, num_samples, seed)]
    return (ratio(np.arange(count)), *percentile_interval(samples))


def _levels(cases: Cases, sets: ConformalInstances) -> Any:
    return np.array(bag_levels(*cases, sets.target, sets.by))


def _joined(scores: Sequence[Tensor], sets: ConformalInstances) -> tuple[Any, Any]:
    """Return the levels at which the instances of each case join its set, infinite after the last, and its size."""
    sizes = np.array([len(values) for values in scores])
    joined = np.full((len(scores), sizes.max()), np.inf)
    for row, values in zip(joined, scores, strict=True):
        row[: len(values)] = prefix_levels(values.sort(descending=True).values, sets.by)
    return joined, sizes


def shift_rows(runs: Mapping[str, Sequence[Cases]], shifted: Mapping[str, Sequence[Cases]]) -> list[dict[str, Any]]:
    """Return what :py:func:`monai_mil_ext.metrics.set_coverage` says of the sets of each run on other cases.

    Args:
        runs: for each method, the cases of its runs, which calibrate.
        shifted: for each method, the other cases, scored by the networks of the same runs.
    """
    rows = []
    for name, others in shifted.items():
        for target, alpha in (("any", 0.1), ("any", 0.05), ("all", 0.1)):
            for number, (cases, other) in enumerate(zip(runs[name], others, strict=True)):
                found = set_coverage(ConformalInstances(alpha, target).fit(*cases), *other)
                about = {"method": name, "run": number, "target": target, "alpha": alpha}
                rows.append({**about, "num_calibration_bags": len(cases[0]), **found})
    return rows


def _named(words: Sequence[str]) -> dict[str, list[Cases]]:
    """Read ``NAME=FILE``; a name that is repeated has several runs."""
    runs: dict[str, list[Cases]] = {}
    for word in words:
        name, separator, path = word.partition("=")
        if not separator:
            raise ValueError(f"`run` must be NAME=FILE, got {word!r}.")
        runs.setdefault(name, []).append(read_cases(path))
    return runs


def main(words: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line, and write its result."""
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce conformal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="append", required=True, metavar="NAME=FILE", help="instances.csv of a method")
    parser.add_argument("--shift", action="append", default=[], metavar="NAME=FILE", help="instances.csv of other data")
    parser.add_argument("--data", default="", help="what the cases are, for the note below the table")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "conformal.json")
    args = parser.parse_args(words)
    runs, shifted = _named(args.run), _named(args.shift)
    counts = sorted({len(cases[0]) for part in runs.values() for cases in part})
    text = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    note = f"{args.data}{' ' if args.data else ''}Means over {args.splits} random halves of {text} cases with a lesion."
    start = time.perf_counter()
    rows = split_rows(runs, args.splits, args.seed)
    seconds = time.perf_counter() - start
    result = {
        **collect_provenance("scripts/reproduce conformal", [args.seed], seconds=seconds, repository=ROOT),
        "heads": HEADS,
        "note": note,
        "rows": rows,
        "shift": shift_rows(runs, shifted),
    }
    write_json(args.output, result)
    for row in result["rows"]:
        print(row["name"], " ".join(f"{key} {value:.3f}" for key, value in row["values"].items()))
    for row in result["shift"]:
        print({key: row[key] for key in ("method", "target", "alpha", "coverage", "holds", "shifted", "mean_size")})
