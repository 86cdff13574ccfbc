"""Class labels as tables and JSON write them: numbers, names, and numbers that a data frame has turned into text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from monai_mil_ext.utils import quote_names

__all__ = ["UNKNOWN", "class_index", "describe_words", "label_text"]

UNKNOWN = {"", "na", "n/a", "nan", "none", "null", "<na>"}
NUMBER = re.compile(r"\d{1,9}([.,]0*)?", re.ASCII)  # 1.0: pandas, if another row of the column is empty
MAX_CLASSES = 20  # names that one message lists


def label_text(value: Any) -> str:
    """Return a label as the text of a cell: without blanks around it, and a whole number without its decimal point.

    Example:
        >>> [label_text(value) for value in (1, 1.0, "1.0", " 1 ", "LUAD", None, True)]
        ['1', '1', '1', '1', 'LUAD', '', 'True']
    """
    text = "" if value is None else str(value).strip()
    return str(int(re.split("[.,]", text)[0])) if NUMBER.fullmatch(text) else text


def class_index(value: Any, classes: Sequence[str] | None = None, num_classes: int | None = None) -> int:
    """Return the class number of a label: the position of its name, or the number itself.

    Args:
        value: text of a cell, or a value of JSON.
        classes: names of the classes in order. A number that is none of the names is a class number.
        num_classes: number of classes, if known.

    Raises:
        ValueError: when the label is none of the classes; the message is the rest of a sentence.

    Example:
        >>> class_index("high", ["low", "high"]), class_index("1.0", num_classes=2), class_index(1, ["low", "high"])
        (1, 1, 1)
    """
    given, text = str(value).strip(), label_text(value)
    names = None if classes is None else [str(name) for name in classes]
    for name in (given, text):
        if names is not None and name in names:
            return names.index(name)
    if names is not None and (not NUMBER.fullmatch(text) or any(map(NUMBER.fullmatch, names))):
        raise ValueError(f"one of {', '.join(map(repr, names))}, got {_shown(value)}")
    if not NUMBER.fullmatch(text):
        raise ValueError(f"a class index, or a name if `classes` is given, got {_shown(value)}")
    limit = num_classes if names is None else len(names)
    if limit is not None and int(text) >= limit:
        raise ValueError(f"a class index from 0 to {limit - 1}, got {_shown(value)}")
    return int(text)


def describe_words(values: Iterable[Any], classes: Sequence[str] | None = None) -> str:
    """Return the message on labels of a cohort that are names of other classes, with the option that takes them.

    Args:
        values: labels of all rows.
        classes: names of the classes, if given.

    Returns:
        The message, or an empty string if a label is a class number or one of ``classes``, so that any other is an
        error of its row.

    Example:
        >>> print(describe_words(["LUSC", "LUAD", "", "LUSC"]))
        labels are LUAD, LUSC: give --class_names "['LUAD','LUSC']" (in Python, `classes` of the columns)
    """
    texts = {label_text(value) for value in values}
    words = sorted(text for text in texts if text.lower() not in UNKNOWN)
    if not words or any(map(NUMBER.fullmatch, words)):
        return ""
    if classes is not None and (len(words) == 1 or set(words) & set(map(str, classes))):
        return ""
    if all(map(_is_number, words)):
        if len(words) == 1:
            return ""
        return f"labels are numbers such as {words[0]}: give --columns#numeric True, or a column of classes as `label`"
    if len(words) > MAX_CLASSES:
        return f"labels are {len(words)} texts such as {words[0]!r}: give a column of classes as --columns#label"
    names = "[" + ",".join(map(repr, words)) + "]"
    listed = ", ".join(quote_names(words))
    return f'labels are {listed}: give --class_names "{names}" (in Python, `classes` of the columns)'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    return "an empty cell" if label_text(value) == "" else repr(value)
