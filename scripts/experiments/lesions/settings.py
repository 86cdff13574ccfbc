"""Protocol of the benchmark, read from ``protocol.json``: seeds, difficulty, cohorts, tests and methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from monai_mil_ext.data import LesionOptions, PlannedScan, plan_lesion_scans
from monai_mil_ext.utils import load_json

__all__ = ["TESTS", "Protocol", "read_protocol"]

TESTS = {"one": "1 lesion", "two": "2 lesions", "three": "3 lesions", "other_head": "another head"}
FILE = Path(__file__).with_name("protocol.json")


@dataclass(frozen=True)
class Protocol:
    """Protocol of the benchmark; a change of any of it is a change of ``protocol.json``.

    Attributes:
        seeds: seeds of the cohorts, each with heads and lesions of its own.
        quick_seed: seed of the quickstart.
        num_scans: number of scans of a cohort.
        cohorts: numbers of lesions of the positive scans, by the name of the cohort.
        tests: number of lesions and head, by the name of the test set.
        drawing: options of the drawing.
        training: settings of all trainings.
        methods: a row of the table each, see :py:mod:`experiments.lesions.training`.
        quick_methods: names of the methods of the quickstart.
    """

    seeds: tuple[int, ...]
    quick_seed: int
    num_scans: int
    cohorts: Mapping[str, list[int]]
    tests: Mapping[str, Mapping[str, Any]]
    drawing: LesionOptions
    training: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    quick_methods: tuple[str, ...]

    def cohort(self, name: str, seed: int) -> list[PlannedScan]:
        """Return the scans of a cohort for training and validation."""
        scans = plan_lesion_scans(self.num_scans, seed, self.cohorts[name])
        return [scan for scan in scans if scan.split != "test"]

    def test(self, name: str, seed: int) -> list[PlannedScan]:
        """Return the scans of a test set: heads that no cohort shows, half of them with so many lesions."""
        options = self.tests[name]
        scans = plan_lesion_scans(self.num_scans, seed, [options["lesions"]], options["anatomy"])
        return [scan for scan in scans if scan.split == "test"]


@cache
def read_protocol() -> Protocol:
    """Read the protocol."""
    values = dict(load_json(FILE))
    drawing = {name: tuple(v) if isinstance(v, list) else v for name, v in values["drawing"].items()}
    lists = {name: tuple(values[name]) for name in ("seeds", "quick_methods")}
    return Protocol(**{**values, **lists, "drawing": LesionOptions(**drawing)})
