"""Folder of the model that a bundle uses: that of a training, or else the one that comes with the bundle."""

from __future__ import annotations

import os
from pathlib import Path

from monai_mil_ext.data import ModelRecord
from monai_mil_ext.data.models import RECORD_FILE
from monai_mil_ext.utils import check_local

__all__ = ["find_model", "is_demonstration", "mark_demonstration", "training_folder"]

WEIGHTS_FILE = "model.pt"
DEMONSTRATION = "demonstration"  # key of `cohort` in the record of shipped weights: what they are for
TRAINED = "trained"  # folder of a training, below that of the shipped weights


def find_model(models: str | os.PathLike[str]) -> str:
    """Return the folder of the model that a bundle uses, unless ``ckpt_dir`` names another one.

    It is the trained model: the only folder in ``models`` with weights, such as ``models/trained`` or
    ``models/fold_0``, or ``models`` itself, if its weights are not those of the bundle. Before any training it is
    ``models``, with the weights that come with the bundle. A training that has begun counts, so that these are never
    taken for its results.

    Args:
        models: folder ``models`` of the bundle.

    Raises:
        ValueError: when several models were trained.

    Example:
        >>> for folder in ("models/fold_0", "models/fold_1"):
        ...     Path(folder).mkdir(parents=True)
        >>> find_model("models")
        'models'
        >>> Path("models/fold_0/model.pt").touch()
        >>> find_model("models")
        'models/fold_0'
        >>> Path("models/fold_1/model.pt").touch()
        >>> find_model("models")
        Traceback (most recent call last):
        ...
        ValueError: `ckpt_dir` must name one of the trained models: models/fold_0, models/fold_1; ...
    """
    check_local(models=models)
    folders = sorted({path.parent for path in Path(models).glob("*/*.pt")})
    if (Path(models) / WEIGHTS_FILE).is_file() and not is_demonstration(models):
        folders.insert(0, Path(models))
    if len(folders) > 1:
        names = [folder.relative_to(Path(models).parent).as_posix() for folder in folders]
        raise ValueError(
            f"`ckpt_dir` must name one of the trained models: {', '.join(names)}; add --ckpt_dir {names[-1]}, for "
            "example."
        )
    return (folders[0] if folders else Path(models)).as_posix()


def training_folder(models: str | os.PathLike[str]) -> str:
    """Return the folder whose weights a training replaces: never that of the weights that come with a bundle.

    Example:
        >>> _ = ModelRecord("digits", cohort={"demonstration": "digits"}).write("models/model.json")
        >>> training_folder("models")
        'models/trained'
    """
    folder = find_model(models)
    return f"{folder}/{TRAINED}" if is_demonstration(folder) else folder


def is_demonstration(folder: str | os.PathLike[str]) -> bool:
    """Return whether the weights of a folder only demonstrate a bundle, as those that come with it."""
    file = Path(folder) / RECORD_FILE
    return file.is_file() and DEMONSTRATION in ModelRecord.read(file).cohort


def mark_demonstration(folder: str | os.PathLike[str], data: str) -> None:
    """Mark the model of a folder as a demonstration that was trained on ``data``.

    Example:
        >>> _ = ModelRecord("digits").write("models/model.json")
        >>> mark_demonstration("models", "handwritten digits")
        >>> is_demonstration("models")
        True
    """
    record = ModelRecord.read(folder)
    values = {**record.to_values(), "cohort": {**record.cohort, DEMONSTRATION: data}}
    ModelRecord.from_values(values).write(Path(folder) / RECORD_FILE)
