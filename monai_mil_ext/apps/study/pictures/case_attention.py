"""Attention of the cases that the report of a study shows, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.networks.nets import BagNet
from monai_mil_ext.transforms import LoadBagd, PatientBagd
from monai_mil_ext.utils import BagKeys, head_mean

__all__ = ["PICTURES", "Draw", "add_pictures", "bag_attention", "pictured_rows"]

PICTURES = 20  # rows with the greatest errors, which have a curve or map of their attention
DRAWN = 12  # cases with pictures of their slices or tiles
SHARE = 4  # one of so many cases of a small cohort, so that drawing stays short beside the study
CASE, COORDS = str(BagKeys.CASE_ID), str(BagKeys.COORDS)
Row = dict[str, Any]
Draw = Callable[[Mapping[str, Any], NDArray[Any]], Sequence[bytes]]


def add_pictures(
    rows: Sequence[Row],
    items: Sequence[Mapping[str, Any]],
    network_of: Callable[[Row], BagNet | None],
    draw: Draw | None = None,
) -> None:
    """Add attention and places of the instances to rows of cases, and pictures to some of them.

    The 20 rows with the greatest errors get ``attention`` and ``position`` or ``coords``; those of
    :py:func:`pictured_rows` also get ``pictures``, if their scan or slide can be read.

    Args:
        rows: rows of :py:func:`monai_mil_ext.apps.study.report.case_rows`, the greatest error first.
        items: items of the cohort.
        network_of: function that returns the network whose attention a row shows, or None.
        draw: function of an item and the attention (N,) of its instances that returns pictures, as PNG or JPEG.
    """
    by_case = {str(item[CASE]): item for item in items}
    drawn = [] if draw is None else [row[CASE] for row in (r for group in pictured_rows(rows) for r in group)]
    for i, row in enumerate(rows):
        if i >= PICTURES and row[CASE] not in drawn:
            continue
        network = network_of(row)
        found = {} if network is None else bag_attention(network, by_case[row[CASE]])
        row.update(found if i < PICTURES else {})
        if draw is not None and row[CASE] in drawn and found:
            row["pictures"] = list(draw(by_case[row[CASE]], found["attention"]))


def pictured_rows(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows that get pictures: those with the greatest errors, and half as many with the smallest.

    There are 12 of them, or a quarter of a small cohort.

    Example:
        >>> worst, best = pictured_rows([{"error": 1 - i / 24} for i in range(24)])
        >>> [round(row["error"], 2) for row in worst], [round(row["error"], 2) for row in best]
        ([1.0, 0.96, 0.92, 0.88], [0.04, 0.08])
    """
    known = [row for row in rows if row.get("error") is not None]
    count = min(DRAWN, max(3, len(known) // SHARE), len(known))
    best = count // 3
    return known[: count - best], known[len(known) - best :][::-1]


def bag_attention(network: BagNet, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attention (N,) of a bag, and the positions or coordinates of its instances where it has any.

    A network without attention gives nothing.
    """
    load = PatientBagd("image", LoadBagd(["image", "position", COORDS], allow_missing_keys=True))
    bag = load({key: item[key] for key in ("image", "start", "stop", "slide") if key in item})
    attention = network.forward_bag(bag["image"][None], None).attention
    if attention is None:
        return {}
    places = {key: np.asarray(bag[key]) for key in ("position", COORDS) if key in bag}
    return {"attention": head_mean(attention[0].detach()).numpy(), **places}
