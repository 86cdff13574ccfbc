"""Report of a cohort, that of a study or a second one, from its predictions."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_mil_ext.apps.study.clinical.covariate_encoding import covariate_cells, is_missing
from monai_mil_ext.apps.study.pictures import add_pictures
from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data import bag_sizes
from monai_mil_ext.networks.nets import BagNet
from monai_mil_ext.utils import BagKeys

from . import ReportFacts, case_rows, compare_methods, summarize_method, write_report
from .cohort_values import describe_cohort
from .decisions import Thresholds

if TYPE_CHECKING:
    from monai_mil_ext.apps.study.study import Study

__all__ = ["CohortResults", "compared_predictions", "read_left_out", "write_cohort_report"]

CASE = str(BagKeys.CASE_ID)
OF_TABLE = Path("cohort/left_out.csv")
Items = Sequence[Mapping[str, Any]]
NetworkOf = Callable[[str, Mapping[str, Any]], BagNet | None]


@dataclass
class CohortResults:
    """Predictions of a cohort, and what the report says of them.

    Args:
        task: task of the study.
        items: items of the cohort.
        bags: predictions of each method from the bags.
        clinical: predictions of each method by ``"clinical"`` variables alone, and by ``"both"``.
        thresholds: thresholds of another cohort, by the name of a method and that of its clinical predictions, such as
            ``"ABMIL both"``; without any, each fold has those of its validation part.
        facts: further facts of the report.
        notes: sentences that the reader needs to know first.
        left_out: cases that can't be used, with reasons.
    """

    task: Task
    items: Items
    bags: dict[str, Predictions]
    clinical: dict[str, dict[str, Predictions]] = field(default_factory=dict)
    thresholds: dict[str, Thresholds] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)


def write_cohort_report(
    study: Study, results: CohortResults, folder: Path, effects: Items, network_of: NetworkOf, external: str = ""
) -> Path:
    """Summarize and compare the predictions of a cohort, and write its report.

    Args:
        study: the study.
        results: predictions of the cohort.
        folder: folder of the report.
        effects: table of the effects of clinical variables.
        network_of: function of a method and a row of a case that returns the network whose attention is shown.
        external: name of the cohort, if it is not that of the study.
    """
    options, task = study.options, results.task
    samples = options.num_samples, options.seed
    limits = results.thresholds
    summaries = {name: summarize_method(bags, task, *samples, limits.get(name)) for name, bags in results.bags.items()}
    clinical = {
        method: {
            name: summarize_method(part, task, *samples, limits.get(f"{method} {name}")) for name, part in parts.items()
        }
        for method, parts in results.clinical.items()
    }
    compared, pairs = compared_predictions(results)
    rows = case_rows(results.bags, task, instances=_instances(results.items))
    with study.timed("pictures"):
        add_pictures(rows, results.items, partial(network_of, next(iter(results.bags))), options.draw)
    failed = {method.name: None for method in study.work.methods if method.name not in summaries}
    cohort = describe_cohort(results.items, task)
    facts = ReportFacts(
        title=options.title,
        task=task,
        cohort={**cohort, "left_out": results.left_out},
        summaries={**summaries, **failed},
        comparisons=compare_methods(compared, task, *samples, pairs),
        clinical={"summaries": clinical, "effects": effects, **_variables(study, results.items)} if clinical else {},
        cases=rows,
        provenance=study.provenance(),
        notes=results.notes,
        external=external,
        **results.facts,
    )
    return write_report(facts, folder)


def compared_predictions(results: CohortResults) -> tuple[dict[str, Predictions], list[tuple[str, str]]]:
    """Return what a report compares, and the pairs: all methods, and each of them with clinical variables.

    Bags together with clinical variables are compared with each of the two alone, which tells what one adds to the
    other, and not with other methods: each comparison makes the correction stricter.
    """
    compared, pairs = dict(results.bags), list(combinations(results.bags, 2))
    if results.clinical:  # the same for all methods, but for folds in which one has failed
        compared["clinical alone"] = max((parts["clinical"] for parts in results.clinical.values()), key=len)
    for method, parts in results.clinical.items():
        both = f"{method} + clinical"
        compared[both] = parts["both"]
        pairs += [(both, "clinical alone"), (both, method)]
    return compared, pairs


def read_left_out(folder: Path) -> list[dict[str, str]]:
    """Return the cases that :py:func:`monai_mil_ext.data.load_cohort` has left out of the cohort of a report."""
    path = folder / OF_TABLE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{"case_id": row["case"], "reason": row["reason"]} for row in csv.DictReader(file)]


def _variables(study: Study, items: Items) -> dict[str, Any]:
    """Return the clinical variables, and the number of cases without a value of each that has some."""
    columns = list(study.clinical.columns or ()) if study.clinical else []
    missing = {name: sum(map(is_missing, covariate_cells(items, name))) for name in columns}
    return {"columns": columns, "missing": {name: count for name, count in missing.items() if count}}


def _instances(items: Items) -> dict[str, int]:
    return dict(zip((str(item[CASE]) for item in items), bag_sizes(items), strict=True))
