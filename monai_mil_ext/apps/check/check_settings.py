"""Settings of the check of a cohort, and its cases and problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from monai_mil_ext.data.scans.slice_stack import IRREGULAR
from monai_mil_ext.transforms.slides import TileBagd
from monai_mil_ext.utils import BagKeys, check_choice, check_count

__all__ = ["CheckSettings", "CheckedCase", "Problem"]

KINDS = ("scans", "slides", "bags")
PLANES = ("axial", "coronal", "sagittal")
CASE, PATIENT = str(BagKeys.CASE_ID), str(BagKeys.PATIENT)


@dataclass(frozen=True)
class CheckSettings:
    """Settings of the check of a cohort.

    Args:
        kind: ``"scans"``, ``"slides"`` or ``"bags"`` (feature files): what the cohort consists of. Files with the
            suffix of a feature file are checked as such in any case.
        level: ``"bag"``, or ``"patient"`` if all bags of a patient are one.
        plane: plane in which scans are cut.
        irregular: see :py:class:`monai_mil_ext.data.ScanReader`.
        hounsfield: whether scans must have Hounsfield units.
        tiles: transform that cuts slides into tiles; None counts no tiles.
        task: ``"classification"``, ``"ordinal"``, ``"regression"``; None finds it from the labels.
        class_names: names of the classes in order; None takes the labels as they are.
        num_folds: number of folds by patient; 1 if the folds are others, 0 if the cohort is only evaluated.
        allow_mismatch: whether several modalities or encoders are a note and no error.
    """

    kind: str = "scans"
    level: str = "bag"
    plane: str = "axial"
    irregular: str = "refuse"
    hounsfield: bool = False
    tiles: TileBagd | None = None
    task: str | None = None
    class_names: Sequence[str] | None = None
    num_folds: int = 5
    allow_mismatch: bool = False

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("level", self.level, ("bag", "patient"))
        check_choice("plane", self.plane, PLANES)
        check_choice("irregular", self.irregular, IRREGULAR)
        check_count(num_folds=self.num_folds)

    def for_external(self, task: str, class_names: Sequence[str] = ()) -> CheckSettings:
        """Return these settings for a second cohort, which is only evaluated and has the task of the first.

        Example:
            >>> CheckSettings("bags").for_external("classification", ("benign", "tumor")).num_folds
            0
        """
        return replace(self, task=task, class_names=list(class_names) or None, num_folds=0)


class Problem(NamedTuple):
    """Problem of a case, or without ``case`` of the cohort, and the option that would help.

    The topic ``"labels"`` is what a study tells itself: its task, and labels by patient, site and part.
    """

    message: str
    case: str = ""
    option: str = ""
    topic: str = "cases"


@dataclass
class CheckedCase:
    """Case of a cohort.

    Args:
        item: what the table states of it: ``case_id``, ``patient``, ``image`` (a path or several), labels, ...
        place: its place in the table, such as ``"row 3"``.
        facts: what its files state.
        problems: what is wrong with it.
        notes: what may be intended.
    """

    item: dict[str, Any]
    place: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Case ID, or the place of a case without."""
        return str(self.item.get(CASE) or self.place)

    @property
    def patient(self) -> str:
        """Patient; a case without is one of its own."""
        return str(self.item.get(PATIENT) or self.name)

    @property
    def paths(self) -> list[str]:
        """Paths of its files."""
        image = self.item.get("image") or []
        return [str(image)] if isinstance(image, str) or not isinstance(image, (list, tuple)) else [*map(str, image)]

    def add(self, message: str, option: str = "") -> None:
        """Add a problem."""
        self.problems.append(Problem(message.removesuffix("."), self.name, option))
