"""Clinical variables beside the bags of a study: predictions of each fold, and of external cohorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task

from .clinical_models import ClinicalModel
from .covariate_encoding import CovariateEncoding, find_kinds
from .late_fusion import LateFusion

__all__ = ["Clinical", "ClinicalFold", "apply_values", "fit_fold"]

Items = Sequence[Mapping[str, Any]]
ORDERED = (
    "Ordered classes are predicted from clinical variables by a multinomial model, which does not use their order."
)


@dataclass(frozen=True)
class Clinical:
    """Clinical variables that a study uses beside the bags.

    Args:
        columns: names of the variables in ``covariates`` of the items; by default all.
        kinds: ``"number"`` or ``"category"`` by variable, where the cells do not tell, such as grades 1, 2 and 3.
    """

    columns: Sequence[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)

    def prepare(self, items: Items) -> Clinical:
        """Return the settings with the kind of each variable, found from all cells of a cohort but from no label.

        It is called once before the folds, so that each has the same kinds, and a faulty table is refused at once.

        Raises:
            ValueError: when a column is missing, has decimal commas, or numbers and text.

        Example:
            >>> cells = [{"age": "61", "sex": "f"}, {"age": "70", "sex": "m"}, {"age": "59", "sex": "f"}]
            >>> Clinical().prepare([{"covariates": row} for row in cells]).kinds
            {'age': 'number', 'sex': 'category'}
        """
        kinds = find_kinds(items, self.columns, self.kinds)
        return replace(self, columns=tuple(kinds), kinds=kinds)


@dataclass(frozen=True)
class ClinicalFold:
    """Clinical variables in one fold.

    Args:
        predictions: rows of ``"clinical"``, of the variables alone, and of ``"both"``, together with the bags.
        values: encoding, coefficients, scales and weights as JSON, for :py:func:`apply_values`.
        notes: sentences for the report.
    """

    predictions: dict[str, Predictions]
    values: dict[str, Any]
    notes: list[str]


def fit_fold(
    clinical: Clinical, train_items: Items, val_items: Items, test_items: Items, task: Task, bag: Predictions
) -> ClinicalFold:
    """Fit clinical variables on the training part of a fold, and their fusion with the bags on its validation part.

    Neither the clinical model nor the weights of the network were fitted on the validation part, but the epoch of the
    network was chosen on it, which may favor the bag a little. No label of the test part is used.

    Args:
        clinical: variables to use, after :py:meth:`Clinical.prepare`.
        train_items: training part.
        val_items: validation part.
        test_items: test part.
        task: the task.
        bag: predictions of the network for the validation and test part of this fold.

    Raises:
        ValueError: when a row of ``bag`` belongs to no item, or no row to the validation part.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ages = rng.normal(60, 9, 90) + 9 * (np.arange(90) % 2)
        >>> items = [
        ...     {"case_id": str(i), "patient": str(i), "label": i % 2, "covariates": {"age": f"{age:.0f}"}}
        ...     for i, age in enumerate(ages)
        ... ]
        >>> names, truth = [item["case_id"] for item in items[50:]], np.arange(50, 90) % 2
        >>> positive = 1 / (1 + np.exp(rng.normal(1 - 2 * truth)))
        >>> zeros, parts = np.zeros(40, dtype=int), ["val"] * 20 + ["test"] * 20
        >>> output = np.column_stack([1 - positive, positive])
        >>> bag = Predictions(names, names, [""] * 40, zeros, zeros, parts, truth, output)
        >>> task = Task("classification", ("benign", "malignant"))
        >>> fold = fit_fold(Clinical(), items[:50], items[50:70], items[70:], task, bag)
        >>> list(fold.predictions), fold.values["weights"]
        (['clinical', 'both'], [0.5])
    """
    encoding = CovariateEncoding.fit(train_items, clinical.columns, clinical.kinds, task)
    model = ClinicalModel.fit(
        encoding.encode(train_items),
        task.truth(train_items),
        [str(item["patient"]) for item in train_items],
        task,
        encoding.columns,
        bag.times,
    )
    alone = _predict(encoding, model, [*val_items, *test_items], task, bag)
    rows = np.array([part == "val" for part in bag.part], dtype=bool)
    if not rows.any():
        raise ValueError(f"`bag` must have rows of the validation part, got {len(bag)} rows without any.")
    patients = [name for name, row in zip(bag.patient, rows, strict=True) if row]
    fusion = LateFusion.fit(alone.output[rows], bag.output[rows], bag.truth[rows], patients, task)
    values = {
        "encoding": encoding.to_json(),
        "model": model.to_json(),
        "fusion": fusion.to_json(),
        "weights": fusion.weights,
        "shares": fusion.shares,
    }
    notes = [*encoding.notes, *encoding.encode_notes([*val_items, *test_items]), *fusion.notes]
    notes += [ORDERED] if task.kind == "ordinal" else []
    return ClinicalFold({"clinical": alone, "both": _combine(fusion, alone, bag, task)}, values, notes)


def apply_values(values: Mapping[str, Any], items: Items, task: Task, bag: Predictions) -> dict[str, Predictions]:
    """Predict another cohort with the values of a fold, unchanged.

    Args:
        values: ``values`` of a :py:class:`ClinicalFold`, also after a round trip through JSON.
        items: items of the cohort; a variable that they lack is treated as missing.
        task: the task.
        bag: predictions of the network of this fold for the cohort.

    Returns:
        The rows of ``"clinical"`` and of ``"both"``.

    Raises:
        ValueError: when a row of ``bag`` belongs to no item.
    """
    encoding, model = CovariateEncoding.from_json(values["encoding"]), ClinicalModel.from_json(values["model"])
    alone = _predict(encoding, model, items, task, bag)
    return {"clinical": alone, "both": _combine(LateFusion.from_json(values["fusion"]), alone, bag, task)}


def _predict(
    encoding: CovariateEncoding, model: ClinicalModel, items: Items, task: Task, bag: Predictions
) -> Predictions:
    """Return predictions by the variables alone, for the rows of the bags."""
    by_case = {str(item["case_id"]): item for item in items}
    absent = sum(case not in by_case for case in bag.case_id)
    if absent:
        raise ValueError(f"`bag` must have rows of cases that are among the items, got {absent} of other cases.")
    output, survival = model.predict(encoding.encode([by_case[case] for case in bag.case_id]), task)
    return replace(bag, output=output, survival=None if bag.survival is None else survival, more={})


def _combine(fusion: LateFusion, alone: Predictions, bag: Predictions, task: Task) -> Predictions:
    """Return predictions by both; the logarithms of cumulative hazards are averaged by the share of the bag."""
    survival = None
    if alone.survival is not None and bag.survival is not None:
        share = fusion.shares[0]
        first, second = (-np.log(np.clip(curves, 1e-9, 1 - 1e-9)) for curves in (alone.survival, bag.survival))
        survival = np.exp(-(first ** (1 - share)) * second**share)
    return replace(bag, output=fusion(alone.output, bag.output, task), survival=survival, more={})
