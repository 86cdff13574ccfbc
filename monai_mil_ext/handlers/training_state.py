"""What else a run has to remember so that, once killed, it ends with the same weights."""

from __future__ import annotations

import random
import re
import warnings
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

__all__ = ["TrainingState", "find_checkpoint"]


class TrainingState:
    """State of the random generators, of the random transforms and of named parts, for a ``CheckpointSaver``.

    It holds the generators of PyTorch (CPU and every CUDA device), NumPy and Python, the ``R`` of every
    ``Randomizable`` below ``transforms``, and the state of the parts: tensors and plain types only, since checkpoints
    are read with ``weights_only=True``. A run that goes on from the end of an epoch then ends with the weights of a run
    that was never stopped; the middle of an epoch can't be gone back to, nor can workers that persist or a data loader
    with its own ``generator``.

    Of several processes the random states of all are in what any of them saves, and each takes up its own, if all have
    attached it; where another number of processes goes on, the first takes up its own and the others keep their seeds.

    Attach it to the trainer, too: each epoch then starts from the random state that was saved, or loaded, at its
    boundary, whatever a validation has drawn since. What is saved has still to be final, so ``LrScheduleHandler``,
    ``ValidationHandler`` (with early stopping behind it) and schedules by epoch must come before ``CheckpointSaver``.

    Args:
        transforms: a transform, dataset or data loader, or several in a list or dictionary.
        **parts: objects with ``state_dict`` and ``load_state_dict``, such as :py:class:`AttentionPriorHandler`, or
            MONAI's ``EarlyStopHandler``. ``None``, as a disabled component of a bundle's config gives, is ignored.

    Raises:
        TypeError: when a part has no state, or one that is neither tensor nor plain.
        ValueError: when a state with other parts or another number of random transforms is loaded.

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
        self._attached = False
        self._boundary: dict[str, Any] | None = None  # the random state that the next epoch starts from
        self._processes: list[dict[str, Any]] = []  # the same of all processes, where there are several

    def attach(self, engine: Any) -> None:
        """Have each epoch of a trainer start from the random state saved or loaded at its boundary."""
        self._attached = True
        engine.add_event_handler(Events.EPOCH_STARTED, self._go_back)
        engine.add_event_handler(Events.ITERATION_STARTED, self._leave_boundary)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._gather)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types; between two epochs, of an attached state, the random part is the same each time."""
        state = self._boundary or self._draws()
        if self._attached:
            self._boundary = state
        parts = {name: _plain(_holder(part).state_dict(), name) for name, part in self._parts.items()}
        return {"random": self._processes or [state], "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :py:meth:`state_dict` gave."""
        if set(state["parts"]) != set(self._parts):
            raise ValueError(f"`state` must have the parts {sorted(self._parts)}, got {sorted(state['parts'])}.")
        states, rank = state["random"], idist.get_rank()
        if (count := len(states[0]["transforms"])) != len(self._random):
            raise ValueError(f"`state` must have {len(self._random)} random transforms, got {count}.")
        if len(states) == idist.get_world_size() or rank == 0:
            self._restore(states[rank])
            self._boundary = dict(states[rank]) if self._attached else None
        for name, part in self._parts.items():
            _holder(part).load_state_dict(state["parts"][name])

    def _draws(self) -> dict[str, Any]:
        return _generators() | {"transforms": [_from_numpy(r.R) for r in self._random]}

    def _gather(self, engine: Any) -> None:
        """At the end of an epoch: whichever process saves, here all of them meet."""
        if idist.get_world_size() > 1 and engine.state.iteration % engine.state.epoch_length == 0:
            self._boundary = self._draws()
            self._processes = idist.all_gather(self._boundary)

    def _restore(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["torch"].cpu())
        if len(state["cuda"]) == torch.cuda.device_count():  # one saved on another machine says nothing here
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        np.random.set_state(_to_numpy(state["numpy"]))  # noqa: NPY002
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        for randomizable, saved in zip(self._random, state["transforms"], strict=True):
            randomizable.R.set_state(_to_numpy(saved))

    def _go_back(self, _engine: Any) -> None:
        if self._boundary is not None:
            self._restore(self._boundary)

    def _leave_boundary(self, _engine: Any) -> None:
        self._boundary, self._processes = None, []


def find_checkpoint(ckpt_dir: str | Path, prefix: str = "checkpoint") -> str | None:
    """Newest checkpoint in a folder that ``CheckpointSaver(save_interval=1, n_saved=2)`` wrote and that can be read.

    MONAI writes in place, so a process that is killed while it writes leaves half a file: that is passed over with a
    warning for the one before, which is why two have to be kept.

    Args:
        ckpt_dir: ``save_dir`` of the saver; it need not exist.
        prefix: what the files are called before ``_epoch=``: ``checkpoint`` if ``save_dict`` has several items and
            ``file_prefix`` is empty.

    Returns:
        A path for ``CheckpointLoader``, or ``None`` if there is nothing to go on from.
    """
    pattern = re.compile(re.escape(prefix) + r"_epoch=(\d+)\.pt")
    matches = (pattern.fullmatch(path.name) for path in Path(ckpt_dir).glob("*.pt"))
    for epoch, name in sorted(((int(m[1]), m[0]) for m in matches if m), reverse=True):
        path = Path(ckpt_dir) / name
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # half a file fails in many ways
            reason = str(error).partition("\n")[0]
            warnings.warn(f"Checkpoint of epoch {epoch} can't be read and is passed over: {reason}", stacklevel=2)
        else:
            return str(path)
    return None


def _randomizables(obj: Any, seen: set[int]) -> Iterator[Randomizable]:
    """Every ``Randomizable`` below an object, once each, in the order in which attributes were set."""
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
    """The object that has the state: MONAI's early stopping keeps Ignite's inside, from when it knows its trainer."""
    if _is_stateful(part):
        return part
    if part._handler is None:
        raise ValueError("`EarlyStopHandler` must have a trainer before its state is saved or loaded, got none.")
    return part._handler


def _plain(value: Any, name: str) -> Any:
    """A state with NumPy's scalars and arrays made plain; anything else that is not could not be loaded again."""
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
