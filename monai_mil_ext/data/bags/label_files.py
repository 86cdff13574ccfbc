"""Readers of labels that are files of their own, as torchmil writes them: one for each bag, or for each instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.utils import BagKeys, check_local

from .bag_file import open_bag
from .bag_rows import BagFileError

__all__ = ["read_bag_label", "read_instance_labels"]

LABELS = str(BagKeys.INSTANCE_LABEL)


def read_instance_labels(path: str | os.PathLike[str]) -> Tensor:
    """Read a file with a label for each instance of a bag.

    Args:
        path: a ``.npy`` file with an array (N,) or (N, 1), or a bag file with the array ``instance_label``.

    Returns:
        Labels (N,).

    Raises:
        BagFileError: (a ``ValueError``) when the file is damaged, or holds another array.
        FileNotFoundError: when there is no such file.

    Example:
        >>> np.save("labels.npy", np.array([[0], [1]]))
        >>> read_instance_labels("labels.npy")
        tensor([0, 1])
    """
    file = _existing(path)
    if file.suffix.lower() == ".npy":
        values = _load(file)
    else:
        with open_bag(file) as bag:
            values = np.asarray(bag.read([LABELS])[LABELS])
    if values.ndim == 0 or values.size != len(values):
        raise BagFileError(f"`{LABELS}` must hold a label for each instance, got {values.shape} in {file.name!r}.")
    return torch.as_tensor(np.array(values.reshape(-1)))


def read_bag_label(path: str | os.PathLike[str]) -> int | float:
    """Read a ``.npy`` file with the label of a bag: an array with one number.

    Raises:
        BagFileError: (a ``ValueError``) when the file is damaged, or holds several numbers.
        FileNotFoundError: when there is no such file.

    Example:
        >>> np.save("label.npy", np.array([1]))
        >>> read_bag_label("label.npy")
        1
    """
    file = _existing(path)
    values = _load(file)
    if values.size != 1:
        raise BagFileError(f"`label` must be one number, got {values.shape} in {file.name!r}.")
    number = values.reshape(-1)[0].item()
    return int(number) if float(number).is_integer() else float(number)


def _existing(path: str | os.PathLike[str]) -> Path:
    check_local(path=path)
    file = Path(path)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"`path` must be a file of labels that exists, got {file.name!r}.")
    return file


def _load(file: Path) -> NDArray[Any]:
    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError):  # NumPy's messages have the path
        raise BagFileError(f"`path` must be an undamaged .npy file of numbers, got {file.name!r}.") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise BagFileError(f"`path` must be a .npy file of numbers, got another kind in {file.name!r}.")
    return values
