"""Checks of the bag files of a cohort."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from monai_mil_ext.data.bags.bag_file import open_bag, read_bag
from monai_mil_ext.data.bags.bag_layout import BagInfo
from monai_mil_ext.data.features.bag_index import BagIndex

from .check_report import Issue
from .mixtures import class_labels, merge_close, mixture_issues

__all__ = ["BagSummary", "CohortChecks"]

COORDS = "coords"
NUMBERS = ("features", COORDS, "position")  # arrays that must be finite
PIXEL = 0.1  # relative difference of resolutions that count as the same: scanners differ by some percent
MPP_AT_1X = 10.0  # micrometers per pixel at magnification 1


class BagSummary(NamedTuple):
    """Properties of a bag file as far as it states them, and an error message or an empty string."""

    num_instances: int = 0
    in_features: int = 0
    error: str = ""
    level: str = "tile"
    encoder: str | None = None
    mpp: float | None = None
    magnification: float | None = None
    tile_size: str | None = None  # with its unit
    configuration: str | None = None  # fingerprint of encoder and preprocessing, in files of FeatureCache

    @property
    def problem(self) -> str:
        """The reason why the bag can't be used, or an empty string."""
        return self.error or ("" if self.num_instances else "a bag must have an instance, got none")


@dataclass(frozen=True)
class CohortChecks:
    """Settings of the checks of bag files.

    Sizes are always checked, and whether all features are of the same encoder, without reading the features. Files of
    several resolutions (mpp, magnification or tile size), or of several fingerprints of :py:class:`FeatureCache`, are a
    note. A label that depends on one of these is an error or a note as well, since a network can then learn it instead
    of the disease.

    Args:
        in_features: width of the features of every bag; ``None`` takes the most frequent width.
        encoder: encoder of every bag that states one; ``None`` requires one encoder, whichever it is.
        allow_mismatch: whether several encoders are a note and no error, such as for two spellings of one name.
        features: whether to read all features, positions and coordinates and check them for NaN and infinite values.
        coords: whether to read the coordinates and check them for duplicates.
        index: file of a :py:class:`BagIndex`, by which files that have not changed since an earlier check are not
            opened again, such as ``index.json`` in the folder of a large store; ``None`` opens all.
    """

    in_features: int | None = None
    encoder: str | None = None
    allow_mismatch: bool = False
    features: bool = False
    coords: bool = False
    index: str | os.PathLike[str] | None = None

    def inspect_all(self, paths: Iterable[Path]) -> dict[Path, BagSummary]:
        """Check bag files, see :py:meth:`inspect`; those that the index knows are not opened."""
        if self.index is None:
            return {path: self.inspect(path) for path in paths}
        with BagIndex(self.index) as index:
            return {path: self._look_up(path, index) for path in paths}

    def _look_up(self, path: Path, index: BagIndex) -> BagSummary:
        checked = [name for name in ("coords", "features") if getattr(self, name)]
        known = index.find(path, checked)
        if known is not None:
            summary = BagSummary(**known)
            return summary._replace(error=self._encoder_error(summary))
        summary = self.inspect(path)
        if not summary.problem:  # so that a file with an error is read again
            index.add(path, {name: v for name, v in summary._asdict().items() if v not in ("", None)}, checked)
        return summary

    def inspect(self, path: str | os.PathLike[str]) -> BagSummary:
        """Check one bag file; an error is returned in the summary and not raised."""
        try:
            summary = _summary(path)
            error = summary.error or self._encoder_error(summary)
            if not error and summary.num_instances:
                error = self._content_error(path)
            return summary._replace(error=error)
        except (OSError, ValueError) as error:
            return BagSummary(error=str(error).replace(str(path), Path(path).name))

    def _encoder_error(self, summary: BagSummary) -> str:
        if self.encoder is None or summary.encoder in (None, self.encoder):
            return ""
        return f"features must be of the encoder {self.encoder!r}, got {summary.encoder!r}"

    def _content_error(self, path: str | os.PathLike[str]) -> str:
        wanted = [key for key in NUMBERS if self.features or (self.coords and key == COORDS)]
        content = read_bag(path, wanted, allow_missing_keys=True) if wanted else {}
        for key, values in content.items():
            count = int((~values.isfinite()).sum())
            if count:
                return f"{key} must be finite, got {count} NaN or infinite values"
        coords = content.get(COORDS) if self.coords else None
        duplicates = 0 if coords is None else len(coords) - len(torch.unique(coords, dim=0))
        return f"instances must have distinct coordinates, got {duplicates} duplicates" if duplicates else ""

    def check_widths(self, summaries: Mapping[Path, BagSummary]) -> dict[Path, BagSummary]:
        """Add an error to each bag whose features have another width than required, or than most bags.

        If two widths are equally frequent, every bag has an error.
        """
        widths = Counter(summary.in_features for summary in summaries.values() if not summary.problem)
        if not widths:
            return dict(summaries)
        width, count = (self.in_features, 0) if self.in_features else widths.most_common(1)[0]
        rule = f"features must have {width} columns" + (f" as in {count} bags" if count else "")
        tied = sorted(size for size, number in widths.items() if number == count)
        if len(tied) > 1:
            width, rule = 0, f"features must have one width, and {' and '.join(map(str, tied))} are as frequent"
        return {
            path: summary._replace(error=f"{rule}, got {summary.in_features}")
            if not summary.problem and summary.in_features != width
            else summary
            for path, summary in summaries.items()
        }

    def compare(
        self,
        summaries: Sequence[BagSummary],
        items: Sequence[Mapping[str, Any]],
        classes: Sequence[str] | None = None,
    ) -> tuple[list[Issue], list[Issue]]:
        """Compare encoder and resolution of all valid bags with each other and with the labels.

        Args:
            summaries: summaries of the bags.
            items: items of the same bags, with their labels.
            classes: names of the classes.

        Returns:
            Errors and notes.
        """
        labels = class_labels(items, classes)
        errors, notes = [], []
        for name, values, is_error in (
            ("level", [s.level for s in summaries], True),
            ("encoder", [s.encoder for s in summaries], not self.allow_mismatch),
            ("configuration", [s.configuration for s in summaries], False),
            ("resolution", _resolutions(summaries), False),
            ("tile size", [s.tile_size for s in summaries], False),
        ):
            more_errors, more_notes = mixture_issues(name, values, labels, is_error)
            errors += more_errors
            notes += more_notes
        return errors, notes


def _summary(path: str | os.PathLike[str]) -> BagSummary:
    with open_bag(path) as bag:
        info, more = bag.info(), bag.read(["fingerprint"], [], allow_missing_keys=True)
    if info.in_features is None:
        return BagSummary(error="a bag must have features, got coordinates only")
    return BagSummary(
        num_instances=info.num_instances,
        in_features=info.in_features,
        level=info.level,
        encoder=info.encoder,
        mpp=info.mpp,
        magnification=None if info.mpp else info.magnification,
        tile_size=_tile_size(info),
        configuration=_short(more.get("fingerprint")),
    )


def _short(fingerprint: Any) -> str | None:
    return fingerprint[:12] if isinstance(fingerprint, str) else None


def _tile_size(info: BagInfo) -> str | None:
    """Return the tile size if it can be compared between slides.

    In pixels of level 0 it depends on the scanner, unless the resolution of the encoder's input is unknown as well.
    """
    if info.input_size:
        return f"{info.input_size:g} px"
    if not info.tile_size or info.tile_size_estimated or not info.unit:
        return None
    if info.unit != "px":
        return f"{info.tile_size:g} {info.unit}"
    return None if info.mpp or info.magnification else f"{info.tile_size:g} px of level 0"


def _resolutions(summaries: Sequence[BagSummary]) -> list[str | None]:
    mpps = [s.mpp or (MPP_AT_1X / s.magnification if s.magnification else None) for s in summaries]
    texts = [f"{s.mpp:g} mpp" if s.mpp else f"{s.magnification:g}x" if s.magnification else None for s in summaries]
    return merge_close(mpps, texts, PIXEL)
