"""Tests that a run with TrainingState is resumed with the same batches, or refused."""

import itertools

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, ThreadDataLoader
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch.utils.data import IterableDataset, RandomSampler

from monai_mil_ext.data import BagBatchSampler
from monai_mil_ext.handlers import TrainingState
from monai_mil_ext.networks.nets import MeanMIL
from tests.handlers.training import CLASSES, F, make_trainer
from tests.helpers import fill

ITEMS = [{"image": torch.full((5, F), i / 12), "label": i % CLASSES, "number": i} for i in range(12)]


class Stream(IterableDataset):
    """Items without a length, or with a wrong one."""

    def __iter__(self):
        return iter(ITEMS)


class WrongLength(Stream):
    def __len__(self):
        return 6


def loader(**options):
    return DataLoader(Dataset(ITEMS), **{"batch_size": 3, **options})


def plain_batches():
    return [{"image": torch.full((2, 5, F), float(i)), "label": torch.tensor([0, 1]), "number": i} for i in range(4)]


def by_size():
    return DataLoader(Dataset(ITEMS), batch_sampler=BagBatchSampler([5] * 12, max_instances=15))


def run(folder, make_data, epochs, epoch_length=None, stop=None, resume=None):
    """Train, and return the numbers of the bags of each epoch and the weights."""
    torch.manual_seed(3)
    data, net, seen = make_data(), fill(MeanMIL(F, CLASSES)), {}
    sampler = getattr(data, "batch_sampler", None)
    state = TrainingState(data, sampler=sampler if isinstance(sampler, BagBatchSampler) else None)
    options = {} if epoch_length is None else {"epoch_length": epoch_length}
    trainer = make_trainer(net, data, max_epochs=epochs, **options)
    parts = {"net": net, "trainer": trainer, "state": state}
    handlers = [CheckpointSaver(str(folder), parts, save_interval=1)]
    if resume is not None:
        handlers.append(CheckpointLoader(f"{folder}/checkpoint_epoch={resume}.pt", parts))
    for handler in [*handlers, state]:
        handler.attach(trainer)

    def note(engine):
        number = engine.state.batch["number"]
        seen.setdefault(engine.state.epoch, []).append(torch.as_tensor(number).tolist())

    trainer.add_event_handler(Events.ITERATION_STARTED, note)
    if stop is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), trainer.terminate)
    trainer.run()
    return seen, {name: t.clone() for name, t in net.state_dict().items()}


EXACT = {
    "in order": (loader, None),
    "whole length": (loader, 4),
    "two passes": (loader, 8),
    "three passes, shuffled": (lambda: loader(shuffle=True), 12),
    "shuffled": (lambda: loader(shuffle=True), None),
    "sampler with replacement": (lambda: loader(sampler=RandomSampler(ITEMS, replacement=True, num_samples=7)), None),
    "workers": (lambda: loader(shuffle=True, num_workers=2, multiprocessing_context="fork"), None),
    "list": (plain_batches, None),
    "list twice": (plain_batches, 8),
    "stream": (lambda: DataLoader(Stream(), batch_size=5), None),
    "batches by size": (by_size, None),
}


@pytest.mark.parametrize(("make_data", "epoch_length"), EXACT.values(), ids=EXACT)
def test_a_resumed_run_sees_the_batches_of_one_that_never_stopped(tmp_path, make_data, epoch_length):
    whole, weights = run(tmp_path, make_data, 3, epoch_length)
    resumed, again = run(tmp_path, make_data, 3, epoch_length, resume=1)
    assert resumed == {epoch: whole[epoch] for epoch in (2, 3)}
    assert all(torch.equal(weights[name], again[name]) for name in weights)


REFUSED = {
    "shorter": (loader, 3, "`epoch_length` must be a multiple of the 4 batches of the data .*, got 3"),
    "longer": (loader, 6, "`epoch_length` must be a multiple of the 4 batches of the data .*, got 6"),
    "list": (plain_batches, 5, "`epoch_length` must be a multiple of the 4 batches of the data .*, got 5"),
    "stream": (lambda: DataLoader(Stream(), batch_size=5), 2, "`epoch_length` must be None for data without a length"),
    "endless": (lambda: itertools.cycle(plain_batches()), 4, "`epoch_length` must be None for data without a length"),
    "wrong length": (
        lambda: DataLoader(WrongLength(), batch_size=3),
        None,
        "`epoch_length` must be the number of batches of the data .*, got 2, which leaves batches for the next epoch",
    ),
    "repeats": (
        lambda: ThreadDataLoader(Dataset(ITEMS), batch_size=3, num_workers=0, repeats=2),
        None,
        "`epoch_length` must be the number of batches of the data .*, got 4, which leaves",
    ),
    "persistent workers": (
        lambda: loader(num_workers=1, persistent_workers=True, multiprocessing_context="fork"),
        None,
        "`persistent_workers` must be False for exact resumption, got True",
    ),
    "own generator": (
        lambda: loader(shuffle=True, generator=torch.Generator()),
        None,
        "`generator` must be None for exact resumption, .*, got one of a DataLoader",
    ),
    "generator of the sampler": (
        lambda: loader(sampler=RandomSampler(ITEMS, generator=torch.Generator())),
        None,
        "`generator` must be None for exact resumption, .*, got one of a RandomSampler",
    ),
}


@pytest.mark.parametrize(("make_data", "epoch_length", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
def test_a_run_that_cannot_be_resumed_exactly_is_refused(tmp_path, make_data, epoch_length, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, make_data, 3, epoch_length)


def test_a_state_from_within_an_epoch_is_refused(tmp_path):
    engine, state = Engine(lambda *_: None), TrainingState()
    state.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), engine.terminate)
    engine.run(range(4), max_epochs=3)
    saved = engine.state_dict(), state.state_dict()
    again, same = Engine(lambda *_: None), TrainingState()
    same.attach(again)
    again.load_state_dict(saved[0])
    same.load_state_dict(saved[1])
    with pytest.raises(ValueError, match="`state` must be of the end of an epoch of 4, got iteration 5"):
        again.run(range(4), max_epochs=3)


def test_an_interrupted_run_continues_within_an_epoch():
    engine, seen = Engine(lambda _, batch: seen.append(batch)), []
    TrainingState().attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), engine.interrupt)
    engine.run(range(4), max_epochs=3)
    engine.run(range(4), max_epochs=3)
    assert seen == [0, 1, 2, 3] * 3


def test_data_of_another_length_is_refused_when_a_run_is_resumed(tmp_path):
    run(tmp_path, loader, 1)
    with pytest.raises(ValueError, match=r"`epoch_length` must be a multiple of the 6 batches of the data .*, got 4"):
        run(tmp_path, lambda: loader(batch_size=2), 3, resume=1)
