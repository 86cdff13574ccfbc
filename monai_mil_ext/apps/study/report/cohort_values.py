"""Description of the cohort of a study: cases, patients, sites, labels and bags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data import InstanceSource, bag_sizes
from monai_mil_ext.utils import BagKeys, optional_dependency

__all__ = ["bag_sources", "describe_cohort", "label_counts", "median_follow_up", "preparation_words"]

lifelines = optional_dependency("study", "lifelines")
PATIENT = str(BagKeys.PATIENT)
ENCODERS = {"MobileNetV2Features": "MobileNetV2 trained on ImageNet, the mean and the maximum of its last feature map"}
Items = Sequence[Mapping[str, Any]]


def describe_cohort(items: Items, task: Task) -> dict[str, Any]:
    """Count the cases, patients, sites and labels of a cohort, for its report."""
    names = task.classes(items)
    sites = sorted({str(item.get("site") or "") for item in items} - {""})
    facts: dict[str, Any] = {"num_cases": len(items), "num_patients": len({str(item[PATIENT]) for item in items})}
    if names is None:
        values = task.truth(items)
        facts["labels"] = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
    else:
        facts["labels"] = label_counts(items, task)
    if task.has_times:
        facts["median_follow_up"] = median_follow_up(task.truth(items))
    if sites:
        facts["num_sites"] = len(sites)
    if sites and names is not None:
        facts["sites"] = {site: label_counts([i for i in items if str(i.get("site")) == site], task) for site in sites}
    source = next(iter(bag_sources(items)), InstanceSource())
    facts["encoder"] = ENCODERS.get(source.encoder or "", source.encoder or "")
    facts["num_features"] = source.width
    facts["preparation"] = preparation_words(source)
    facts["instances"] = "slices" if source.plane else "tiles" if source.mpp or source.magnification else "instances"
    sizes = bag_sizes(items)
    facts["median_instances"], facts["range_instances"] = float(np.median(sizes)), [int(min(sizes)), int(max(sizes))]
    return facts


def preparation_words(source: InstanceSource) -> str:
    """Return how slices or tiles were prepared for the encoder, as far as it is known.

    Example:
        >>> preparation_words(InstanceSource(plane="axial", window=(-1000.0, 400.0), spatial_size=(224,)))
        'axial, scaled to 224 × 224 pixels, values from -1000 to 400'
        >>> preparation_words(InstanceSource(mpp=(0.5,), tile_size=(224.0,)))
        '224 × 224 pixels, 0.5 µm per pixel'
    """
    size = [f"scaled to {n} × {n} pixels" for n in source.spatial_size[:1]]
    pixel = [f"{mm:g} mm per pixel" for mm in source.pixel_mm[:1]]
    window = [f"values from {source.window[0]:g} to {source.window[1]:g}"] if len(source.window) == 2 else []
    normalized = [f"{source.normalization} normalization"] if source.normalization else []
    tile = [f"{n:g} × {n:g} pixels" for n in source.tile_size[:1]] if not source.plane else []
    scale = [f"{_range(source.mpp)} µm per pixel"] if source.mpp else []
    scale = scale or ([f"{_range(source.magnification)}x magnification"] if source.magnification else [])
    return ", ".join([*filter(None, [source.plane]), *size, *pixel, *window, *normalized, *tile, *scale])


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):g}", f"{max(values):g}"
    return low if low == high else f"{low} to {high}"


def label_counts(items: Items, task: Task) -> dict[str, int]:
    """Return the number of cases of each class, of events, or of each label, for each of which a case may count.

    There are none for a regression.
    """
    if task.kind == "multilabel" and items:
        positive = (task.truth(items) == 1).sum(axis=0)
        return dict(zip(task.class_names, positive.tolist(), strict=True))
    return dict(sorted(Counter(task.classes(items) or () if items else ()).items()))


def median_follow_up(truth: NDArray[Any]) -> float | None:
    """Return the median time under observation of labels (R, 2), by the reverse Kaplan-Meier method.

    Events end the observation as censoring does in a survival curve. None if half of the cases are not observed to
    their end.

    References:
        Schemper and Smith, "A Note on Quantifying Follow-up in Studies of Failure Time", Controlled Clinical Trials
        17, 1996

    Example:
        >>> median_follow_up(np.array([[1.0, 1.0], [2.0, 0.0], [4.0, 0.0], [5.0, 0.0]]))
        4.0
    """
    median = float(lifelines.KaplanMeierFitter().fit(truth[:, 0], 1 - truth[:, 1]).median_survival_time_)
    return median if np.isfinite(median) else None


def bag_sources(items: Items) -> list[InstanceSource]:
    """Return the source of the bags; none if they differ in something that can't be mixed."""
    try:
        return [InstanceSource.from_items(items)]
    except ValueError:
        return []
