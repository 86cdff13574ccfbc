"""State needed for bit-exact resumption: random generators, random transforms and stateful handlers."""

from __future__ import annotations

import random
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from monai.handlers import EarlyStopHandler
from monai.transforms import Randomizable, Transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from monai_mil_ext.utils import check_local
from monai_mil_ext.utils.archives import damaged_member

from .whole_passes import WholePasses

__all__ = ["TrainingState", "find_checkpoint"]


class TrainingState:
    """State of random generators, random transforms and named parts of a training run, for a ``CheckpointSaver``.

    It contains the random states of PyTorch (CPU and all CUDA devices), NumPy and Python, the ``R`` of every
    ``Randomizable`` in ``transforms``, and the states of the parts; only tensors and plain types, since checkpoints are
    loaded with ``weights_only=True``. A run that is resumed at the end of an epoch then ends with the same weights as
    an uninterrupted one. What cannot be resumed exactly is refused when it starts: an ``epoch_length`` that is no
    multiple of the batches of the data, resuming within an epoch, persistent workers, and data loaders or samplers with
    their own ``generator``; see :py:class:`WholePasses`.

    In a distributed run, the random states of all processes are part of every saved state, and each process restores
    its own, provided that all processes attached it. If the run is resumed with another number of processes, the first
    restores its state and the others keep their seeds.

    Attach it to the trainer as well: each epoch then starts from the random state that was saved or loaded at its
    boundary, independent of random numbers drawn by validation. ``LrScheduleHandler``, ``ValidationHandler`` (followed
    by early stopping) and schedules by epoch must be attached before ``CheckpointSaver``, so that the saved state is
    final.

    Args:
        transforms: transform, dataset or data loader, or several in a list or dictionary.
        **parts: objects with ``state_dict`` and ``load_state_dict``, such as :py:class:`AttentionPriorHandler`, or
            MONAI's ``EarlyStopHandler``. ``None``, as a disabled component of a bundle's config gives, is ignored.

    Raises:
        TypeError: if a part has no state, or its state has other types than tensors and plain types.
        ValueError: if a loaded state has other parts or another number of random transforms; in a run, if it could not
            be resumed exactly, or is resumed within an epoch.

    Example:
        >>> state = TrainingState()
        >>> saved, drawn = state.state_dict(), torch.rand(2)
        >>> state.load_state_dict(saved)
        >>> torch.equal(torch.rand(2), drawn)
        True
    """

    def __init__(self, transforms: Any = None, **parts: Any) -> None:
        parts = {name: part for name, part in parts.items() if part is not None}
        for name, part in parts.items():
            if not (isinstance(part, EarlyStopHandler) or _is_stateful(part)):
                raise TypeError(f"`{name}` must have state_dict and load_state_dict, got {type(part).__name__}.")
        self._random = list(_randomizables(transforms, set()))
        self._parts = parts
        self._attached = self._loaded = False
        self._boundary: dict[str, Any] | None = None  # random state at the start of the next epoch
        self._processes: list[dict[str, Any]] = []  # the same for all processes of a distributed run

    def attach(self, engine: Any) -> None:
        """Attach to a trainer, so that each epoch starts from the random state saved or loaded at its boundary."""
        self._attached = True
        WholePasses().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._restore_boundary)
        engine.add_event_handler(Events.ITERATION_STARTED, self._leave_boundary)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._gather)

    def state_dict(self) -> dict[str, Any]:
        """Return the state; if attached, its random part does not change between two epochs."""
        state = self._boundary or self._random_state()
        if self._attached:
            self._boundary = state
        parts = {name: _plain(_holder(part).state_dict(), name) for name, part in self._parts.items()}
        return {"random": self._processes or [state], "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that :py:meth:`state_dict` returned."""
        if set(state["parts"]) != set(self._parts):
            raise ValueError(f"`state` must have the parts {sorted(self._parts)}, got {sorted(state['parts'])}.")
        self._loaded = True
        states, rank = state["random"], idist.get_rank()
        if (count := len(states[0]["transforms"])) != len(self._random):
            raise ValueError(f"`state` must have {len(self._random)} random transforms, got {count}.")
        if len(states) == idist.get_world_size() or rank == 0:
            self._restore(states[rank])
            self._boundary = dict(states[rank]) if self._attached else None
        for name, part in self._parts.items():
            _holder(part).load_state_dict(state["parts"][name])

    def _random_state(self) -> dict[str, Any]:
        return _generators() | {"transforms": [_from_numpy(r.R) for r in self._random]}

    def _gather(self, engine: Any) -> None:
        """Gather the states of all processes at the end of an epoch, since only one of them saves."""
        if idist.get_world_size() > 1 and engine.state.iteration % engine.state.epoch_length == 0:
            self._boundary = self._random_state()
            self._processes = idist.all_gather(self._boundary)

    def _restore(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["torch"].cpu())
        if len(state["cuda"]) == torch.cuda.device_count():  # else saved on a machine with other devices
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        np.random.set_state(_to_numpy(state["numpy"]))  # noqa: NPY002
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        for randomizable, saved in zip(self._random, state["transforms"], strict=True):
            randomizable.R.set_state(_to_numpy(saved))

    def _restore_boundary(self, engine: Any) -> None:
        iteration, epoch_length = engine.state.iteration, engine.state.epoch_length
        if self._loaded and epoch_length and iteration % epoch_length:
            raise ValueError(f"`state` must be of the end of an epoch of {epoch_length}, got iteration {iteration}.")
        self._loaded = False
        if self._boundary is not None:
            self._restore(self._boundary)

    def _leave_boundary(self, _engine: Any) -> None:
        self._boundary, self._processes = None, []


def find_checkpoint(ckpt_dir: str | Path, prefix: str = "checkpoint") -> str | None:
    """Return the newest readable checkpoint of a ``CheckpointSaver(save_interval=1, n_saved=2)``.

    MONAI does not write atomically, so a process that is killed while writing leaves a damaged file. It is skipped with
    a warning, and the previous checkpoint is used; therefore at least two must be kept. The same holds for a file whose
    bytes do not match their checksums.

    Args:
        ckpt_dir: ``save_dir`` of the saver; it need not exist.
        prefix: file name before ``_epoch=``: ``checkpoint`` if ``save_dict`` has several items and ``file_prefix`` is
            empty.

    Returns:
        Path for ``CheckpointLoader``, or ``None`` if there is no checkpoint.
    """
    check_local(ckpt_dir=ckpt_dir)
    pattern = re.compile(re.escape(prefix) + r"_epoch=(\d+)\.pt")
    matches = (pattern.fullmatch(path.name) for path in Path(ckpt_dir).glob("*.pt"))
    for epoch, name in sorted(((int(m[1]), m[0]) for m in matches if m), reverse=True):
        path = Path(ckpt_dir) / name
        reason = _damage(path)
        if not reason:
            return str(path)
        warnings.warn(f"Checkpoint of epoch {epoch} can't be read and is skipped: {reason}", stacklevel=2)
    return None


def _damage(path: Path) -> str:
    """Return why a checkpoint can't be used, or an empty string; PyTorch itself compares no checksums."""
    try:
        member = damaged_member(path) if zipfile.is_zipfile(path) else None
        torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:  # its text has the whole path
        return error.strerror or "it can't be opened"
    except Exception as error:  # damaged files raise many kinds of errors
        return str(error).partition("\n")[0] or type(error).__name__
    return f"{member.partition('/')[2]} does not match its checksum" if member else ""


def _randomizables(obj: Any, seen: set[int]) -> Iterator[Randomizable]:
    """Yield every ``Randomizable`` in an object once, in the order in which attributes were set."""
    children: Iterable[Any]
    if isinstance(obj, (Randomizable, Transform, Dataset, DataLoader)):
        children = vars(obj).values()
    elif isinstance(obj, Mapping):
        children = obj.values()
    elif isinstance(obj, (list, tuple)):
        children = obj
    else:
        return
    if id(obj) in seen:
        return
    seen.add(id(obj))
    if isinstance(obj, Randomizable):
        yield obj
    for child in children:
        yield from _randomizables(child, seen)


def _generators() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": _from_numpy(np.random),
        "python": [version, list(words), gauss],
    }


def _from_numpy(generator: Any) -> list[Any]:
    name, words, position, has_gauss, gauss = generator.get_state()
    return [name, torch.from_numpy(words.astype(np.int64)), int(position), int(has_gauss), float(gauss)]


def _to_numpy(state: list[Any]) -> tuple[Any, ...]:
    name, words, position, has_gauss, gauss = state
    return name, words.cpu().numpy().astype(np.uint32), position, has_gauss, gauss


def _is_stateful(part: Any) -> bool:
    return hasattr(part, "state_dict") and hasattr(part, "load_state_dict")


def _holder(part: Any) -> Any:
    """Return the object with the state: MONAI's early stopping wraps Ignite's once it has a trainer."""
    if _is_stateful(part):
        return part
    if part._handler is None:
        raise ValueError("`EarlyStopHandler` must have a trainer before its state is saved or loaded, got none.")
    return part._handler


def _plain(value: Any, name: str) -> Any:
    """Convert NumPy scalars and arrays of a state; raise ``TypeError`` for types that could not be loaded."""
    if isinstance(value, Mapping):
        return {key: _plain(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (Tensor, bool, int, float, str)):
        return value
    raise TypeError(f"`{name}` must have a state of tensors and plain types, got {type(value).__name__} in it.")
