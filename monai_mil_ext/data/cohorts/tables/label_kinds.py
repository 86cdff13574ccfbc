"""Kind of the labels of a column: classes in their order, numbers, or what must be asked."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from monai_mil_ext.data.cohorts.class_labels import MAX_CLASSES, UNKNOWN, class_index, label_text

__all__ = ["LabelKind", "find_kind", "is_known", "order_names"]

NEGATIVE = re.compile(
    r"(0|-1?|no|none|neg|negative|false|absent|benign|normal|controls?|healthy|wild ?type|wt|unmutated|low|stable"
    r"|mss|pmmr|alive|living)|(no|non|not|without) .+|non.*(tumou?r|cancer|diseased?|malignant|responders?)"
)
POSITIVE = re.compile(
    r"1|\+|yes|pos|positive|true|present|malignant|tumou?r|cancer|mut|mt|mutated|mutant|mutation|diseased?|case|high"
    r"|msi|msi h|dmmr|dead|deceased"
)
DOUBTFUL = re.compile(r"unknown|missing|not (reported|available|applicable|known|done)|undetermined|\?+|-+|\.+")
DOUBT = (
    "`label` must be a class or an empty cell, got {!r}, which may be either: empty these cells, or name all classes "
    "by --class_names."
)
DECIMAL_COMMA = re.compile(r"-?\d+,\d+", re.ASCII)
INTEGER = re.compile(r"-?\d+", re.ASCII)
MAX_SHOWN = 5  # labels in a message
MAX_TYPOS, TYPO_RATIO = 2, 4  # rows of a misspelt label, and those of its class as a multiple
MIN_LETTERS, NEAR = 5, 0.85  # of words that are compared, and their similarity
AMONG = "classification, ordinal or regression"


class LabelKind(NamedTuple):
    """Kind of labels, names of their classes, and notes."""

    kind: str
    class_names: list[str]
    notes: list[str]


def find_kind(cells: Sequence[str], task: str | None = None, class_names: Sequence[str] | None = None) -> LabelKind:
    """Return the kind of the labels of one column.

    Args:
        cells: text of all cells.
        task: ``"classification"``, ``"ordinal"`` or ``"regression"``; ``None`` finds it.
        class_names: names of the classes in their order.

    Raises:
        ValueError: when the labels are of no kind, or of several; the message names the option that decides.

    Example:
        >>> find_kind(["tumor", "normal", "", "tumor"]).class_names
        ['normal', 'tumor']
        >>> find_kind(["0.5", "1.25", "3"]).kind
        'regression'
    """
    counts = Counter(text for cell in cells if is_known(text := label_text(cell), class_names))
    if not counts:
        raise ValueError("`label` must have values, got empty cells only: give a column of labels as --columns#label.")
    if task == "regression":
        return LabelKind("regression", [], [])
    if class_names is not None:
        return _of_given_names(counts, task, list(map(str, class_names)))
    if task is None and _is_regression(counts):
        return LabelKind("regression", [], [f"labels are numbers from {_range(counts)}: a regression"])
    _check_missing(cells, counts)
    _check_classes(counts, task)
    return _of_names(counts, task, order_names(counts), "--class_names gives another order")


def is_known(cell: str, class_names: Sequence[str] | None = None) -> bool:
    """Return whether a cell has a label: a class may have a name such as ``none`` that stands for nothing elsewhere."""
    return cell.lower() not in UNKNOWN or (cell != "" and cell in (class_names or ()))


def order_names(names: Sequence[str] | Mapping[str, int]) -> list[str]:
    """Return class names in order: numbers by value; words with known negatives such as ``benign`` first.

    Example:
        >>> order_names(["mutated", "wild-type"]), order_names(["10", "9"]), order_names(["grade 10", "grade 2"])
        (['wild-type', 'mutated'], ['9', '10'], ['grade 2', 'grade 10'])
    """
    if all(map(INTEGER.fullmatch, names)):
        return sorted(names, key=int)

    def key(name: str) -> tuple[int, list[tuple[int, str]]]:
        plain = _plain(name)
        sign = -1 if NEGATIVE.fullmatch(plain) else 1 if POSITIVE.fullmatch(plain) else 0
        return sign, [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", plain)]

    return sorted(names, key=key)


def _of_given_names(counts: Mapping[str, int], task: str | None, names: list[str]) -> LabelKind:
    indices: Counter[str] = Counter()
    for text, count in counts.items():
        try:
            indices[names[class_index(text, names)]] += count
        except ValueError as error:
            raise ValueError(f"`class_names` must name the classes of all labels: a label must be {error}.") from None
    return _of_names(indices, task, names, "as given")


def _of_names(counts: Mapping[str, int], task: str | None, names: list[str], order: str) -> LabelKind:
    kind = task or "classification"
    if len(names) < (least := 3 if kind == "ordinal" else 2):
        raise ValueError(f"`label` must have at least {least} classes for {kind}, got {_shown(names)}.")
    listed = ", ".join(f"{name!r} ({counts.get(name, 0)})" for name in names)
    positive = f"; {names[1]!r} is the positive class" if len(names) == 2 else ""
    notes = [f"{len(names)} classes in this order: {listed}{positive} ({order})"]
    if kind == "classification" and len(names) > 2 and all(map(INTEGER.fullmatch, counts)):
        notes.append("labels are whole numbers: if they are grades in order, --task ordinal makes use of it")
    return LabelKind(kind, names, notes)


def _is_regression(counts: Mapping[str, int]) -> bool:
    is_number = all(map(_is_number, counts))
    return is_number and (len(counts) > MAX_CLASSES or not all(map(INTEGER.fullmatch, counts)))


def _check_missing(cells: Sequence[str], counts: Mapping[str, int]) -> None:
    """Raise if the cells of words have ``none`` as well, which may be a class."""
    none = next((cell for cell in cells if cell.lower() in ("none", "null")), None)
    if none is not None and not all(map(_is_number, counts)):
        raise ValueError(DOUBT.format(none))


def _check_classes(counts: Mapping[str, int], task: str | None) -> None:
    """Raise unless it is clear that each label is the name or the number of a class."""
    names = list(counts)
    doubtful = [name for name in names if DOUBTFUL.fullmatch(name.casefold())]
    numbers = [name for name in names if _is_number(name)]
    if len(names) == 1:
        raise ValueError(f"`label` must have at least 2 classes, got {names[0]!r} in all rows.")
    if doubtful and len(names) > 2:
        raise ValueError(DOUBT.format(doubtful[0]))
    if commas := [name for name in names if DECIMAL_COMMA.fullmatch(name)]:
        raise ValueError(f"`label` must have decimal points, got {commas[0]!r}.")
    _check_spelling(counts)
    if len(names) > MAX_CLASSES and task is None:
        raise ValueError(
            f"`label` must have at most {MAX_CLASSES} classes, got {len(names)} such as {names[0]!r}: give a column of "
            "classes as --columns#label, or --task classification."
        )
    if numbers and len(numbers) < len(names):
        words = sorted(set(names) - set(numbers))
        raise ValueError(
            f"`label` must be numbers or names, got both, such as {numbers[0]!r} and {words[0]!r}: name the classes in "
            "their order by --class_names."
        )
    _check_order(names, numbers, task)


def _check_spelling(counts: Mapping[str, int]) -> None:
    """Raise if two labels differ by upper case or separators alone, or a rare one looks like a misspelt other one."""
    folded = Counter(_plain(name) for name in counts)
    if max(folded.values()) > 1:
        same = sorted(name for name in counts if folded[_plain(name)] > 1)
        raise ValueError(f"`label` must have one spelling for each class, got {_shown(same)}.")
    for rare, other in itertools.permutations(counts, 2):
        if counts[rare] <= MAX_TYPOS and counts[other] >= TYPO_RATIO * counts[rare] and _is_misspelt(rare, other):
            raise ValueError(
                f"`label` must have one spelling for each class, got {rare!r} in {counts[rare]} of "
                f"{sum(counts.values())} rows and {other!r} in {counts[other]}: correct it, or name all classes by "
                "--class_names if it is one."
            )


def _is_misspelt(name: str, other: str) -> bool:
    """Return whether one word of a name is nearly that of another name; ``typical`` is not nearly ``atypical``."""
    words, others = _plain(name).split(), _plain(other).split()
    if len(words) != len(others):
        return False
    differing = [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]]
    return len(differing) == 1 and all(_is_near(*pair) for pair in differing)


def _is_near(word: str, other: str) -> bool:
    is_long = max(len(word), len(other)) >= MIN_LETTERS and (word + other).isalpha()
    is_negated = word.endswith(other) or other.endswith(word)
    return is_long and not is_negated and difflib.SequenceMatcher(None, word, other).ratio() >= NEAR


def _plain(name: str) -> str:
    """Return a name in lower case with single spaces; ``-1`` and ``1`` remain two numbers."""
    return name if _is_number(name) else re.sub(r"[\s_\-]+", " ", name.casefold()).strip() or name


def _check_order(names: Sequence[str], numbers: Sequence[str], task: str | None) -> None:
    whole = [int(name) for name in numbers if INTEGER.fullmatch(name)]
    if task == "ordinal" and not whole:
        raise ValueError(
            f"`class_names` must be given for ordinal labels that are words, from the lowest to the highest, got "
            f"{_shown(sorted(names))}."
        )
    is_counted = sorted(whole) in (list(range(len(whole))), list(range(1, len(whole) + 1)))
    if task is None and len(whole) > 2 and not is_counted:
        raise ValueError(
            f"`task` must be given for whole numbers that are not 0, 1, 2, ..., got {_shown(sorted(names, key=int))}: "
            f"--task {AMONG}."
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _range(counts: Mapping[str, int]) -> str:
    values = [float(text) for text in counts]
    return f"{min(values):g} to {max(values):g}"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(map(repr, names[:MAX_SHOWN])) + more
