"""Tests of TrainingState and find_checkpoint: contents of the state, and killed and resumed runs."""

import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.handlers import EarlyStopHandler
from monai.transforms import Compose, OneOf, RandFlip, RandGaussianNoised, RandScaleIntensity
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionPriorHandler, TrainingState, find_checkpoint
from tests.handlers.resumable_run import EPOCHS, STEPS, run
from tests.handlers.training import PROCESSES


def through_a_file(state, folder):
    torch.save(state.state_dict(), folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


def in_a_process(*arguments, **options):
    process = PROCESSES.Process(target=run, args=arguments, kwargs=options)
    process.start()
    process.join(120)
    return process.exitcode


def final(folder):
    return torch.load(folder / "final.pt", weights_only=True)


@pytest.mark.parametrize(
    ("num_workers", "saver_last", "truncate"), [(0, True, False), (2, True, False), (0, False, True)]
)
def test_training_state_resumes_a_killed_run_bit_for_bit(tmp_path, num_workers, saver_last, truncate):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_a_process(str(whole), num_workers, saver_last) == 0
    epochs = random.choice(range(2, EPOCHS))  # noqa: S311
    die_at = epochs * STEPS + random.choice([1, 2, 3])  # noqa: S311
    assert in_a_process(str(killed), num_workers, saver_last, die_at=die_at) == -signal.SIGKILL
    newest = killed / "checkpoints" / f"checkpoint_epoch={epochs}.pt"
    if truncate:
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert in_a_process(str(killed), num_workers, saver_last) == 0
    expected, got = final(whole), final(killed)
    assert Path(got.pop("checkpoint")).name == f"checkpoint_epoch={epochs - truncate}.pt"
    assert expected.pop("checkpoint") == ""
    if not saver_last:  # then the saved state is from before the validation: only the random part is safe
        assert expected.pop("early_stop") == got.pop("early_stop") + 1
    assert_close(got, expected, rtol=0, atol=0, msg=lambda m: f"killed at step {die_at}: {m}")
    assert expected["weight"] == 2.0


def test_training_state_restores_generators_and_transforms(tmp_path):
    transforms = Compose([RandGaussianNoised("image", prob=0.5), OneOf([RandFlip(0.5), RandScaleIntensity(0.5)])])

    def draw():
        rng = [t.R.rand() for t in (*transforms.transforms, transforms.transforms[0].rand_gaussian_noise)]
        rng += [t.R.rand() for t in transforms.transforms[1].transforms]
        return [*rng, torch.rand(()).item(), random.random(), np.random.rand(), np.random.randn()]  # noqa: NPY002, S311

    np.random.randn()  # noqa: NPY002  leaves a second normal for the next draw
    random.gauss(0, 1)
    state = TrainingState(DataLoader(Dataset([], transforms), batch_size=1))
    saved = through_a_file(state, tmp_path)
    assert len(saved["random"][0]["transforms"]) == 6
    drawn, gauss = draw(), random.gauss(0, 1)
    assert draw() != drawn
    state.load_state_dict(saved)
    assert draw() == drawn
    assert random.gauss(0, 1) == gauss


def test_training_state_takes_each_random_transform_once():
    flip = RandFlip(0.5)
    assert len(TrainingState([flip, {"again": flip}, Compose([flip])]).state_dict()["random"][0]["transforms"]) == 2


def test_training_state_attached_starts_epochs_from_their_boundary():
    engine, state, drawn = Engine(lambda *_: torch.rand(()).item()), TrainingState(), []
    state.attach(engine)
    saved = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: saved.append(state.state_dict()["random"][0]["torch"]))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: torch.rand(3))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: saved.append(state.state_dict()["random"][0]["torch"]))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: drawn.append(e.state.output))
    engine.run([0, 1], max_epochs=3)
    torch.manual_seed(0)
    assert drawn == torch.rand(6).tolist()
    assert all(torch.equal(a, b) for a, b in zip(saved[::2], saved[1::2], strict=True))
    assert not torch.equal(saved[0], saved[2])


def test_training_state_with_early_stopping_and_priors(tmp_path):
    def make():
        early = EarlyStopHandler(patience=9, score_function=lambda _: np.float64(0.5), trainer=Engine(lambda *_: None))
        prior = AttentionPriorHandler(lambda attention, mask: attention.sum())
        return early, prior, TrainingState(early=early, prior=prior)

    early, prior, state = make()
    for _ in range(3):
        early(None)
    prior.set_weight(0.25)
    again, again_prior, again_state = make()
    again_state.load_state_dict(through_a_file(state, tmp_path))
    assert (again._handler.counter, again._handler.best_score, again_prior.weight) == (2, 0.5, 0.25)


class Part:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_training_state_converts_arrays_to_tensors(tmp_path):
    part = Part({"a": np.arange(3), "b": [np.int64(4), None, (True, "x")]})
    state = TrainingState(part=part)
    state.load_state_dict(through_a_file(state, tmp_path))
    assert part.state["a"].tolist() == [0, 1, 2]
    assert part.state["b"] == [4, None, [True, "x"]]


def test_training_state_ignores_a_disabled_part():
    assert TrainingState(part=None).state_dict()["parts"] == {}


def test_training_state_refuses_types_that_cannot_be_loaded():
    with pytest.raises(TypeError, match="`part` must have state_dict and load_state_dict, got int"):
        TrainingState(part=3)
    with pytest.raises(TypeError, match="`part` must have a state of tensors and plain types, got PosixPath in it"):
        TrainingState(part=Part({"path": Path()})).state_dict()
    with pytest.raises(ValueError, match="`EarlyStopHandler` must have a trainer before"):
        TrainingState(early=EarlyStopHandler(3, lambda _: 0.0)).state_dict()


def test_training_state_refuses_the_state_of_another_run():
    with pytest.raises(ValueError, match=r"`state` must have the parts \['a'\], got \[\]"):
        TrainingState(a=Part({})).load_state_dict(TrainingState().state_dict())
    with pytest.raises(ValueError, match="`state` must have 1 random transforms, got 0"):
        TrainingState(RandFlip()).load_state_dict(TrainingState().state_dict())


def test_find_checkpoint_returns_the_newest(tmp_path):
    assert find_checkpoint(tmp_path / "missing") is None
    assert find_checkpoint(tmp_path) is None
    for epoch in (2, 9, 10):
        torch.save({"epoch": torch.tensor(epoch)}, tmp_path / f"checkpoint_epoch={epoch}.pt")
    for other in ("model.pt", "checkpoint_epoch=11.pt.tmp", "x_checkpoint_epoch=12.pt", "checkpoint_iteration=13.pt"):
        (tmp_path / other).write_bytes(b"")
    assert find_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=10.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of it", b"no checkpoint"])
def test_find_checkpoint_skips_damaged_files(tmp_path, content):
    torch.save({}, tmp_path / "run_net_epoch=1.pt")
    (tmp_path / "run_net_epoch=2.pt").write_bytes(content)
    with pytest.warns(UserWarning, match="Checkpoint of epoch 2 can't be read and is skipped"):
        assert find_checkpoint(str(tmp_path), prefix="run_net") == str(tmp_path / "run_net_epoch=1.pt")


def test_find_checkpoint_skips_files_with_other_types(tmp_path):
    torch.save({"path": Path()}, tmp_path / "checkpoint_epoch=1.pt")
    with pytest.warns(UserWarning, match="Checkpoint of epoch 1 can't be read"):
        assert find_checkpoint(tmp_path) is None


def test_find_checkpoint_skips_a_file_with_a_flipped_bit(tmp_path):
    for epoch in (1, 2):
        torch.save({"weight": torch.full((100,), 0.26)}, tmp_path / f"checkpoint_epoch={epoch}.pt")
    newest = tmp_path / "checkpoint_epoch=2.pt"
    raw = bytearray(newest.read_bytes())
    raw[raw.index(torch.full((100,), 0.26).numpy().tobytes()) + 3] ^= 0x40  # of the exponent
    newest.write_bytes(raw)
    assert torch.load(newest, weights_only=True)["weight"][0] > 1e37  # PyTorch reads it
    with pytest.warns(UserWarning, match=r"Checkpoint of epoch 2 .* skipped: data/0 does not match its checksum"):
        assert find_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=1.pt")


def test_find_checkpoint_takes_files_without_checksums_and_in_the_old_format(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(9)}, tmp_path / "checkpoint_epoch=2.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert find_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=2.pt")
    torch.save({"weight": torch.ones(9)}, tmp_path / "checkpoint_epoch=3.pt", _use_new_zipfile_serialization=False)
    assert find_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=3.pt")


def test_find_checkpoint_skips_a_link_to_itself_without_its_path(tmp_path):
    (tmp_path / "checkpoint_epoch=1.pt").symlink_to("checkpoint_epoch=1.pt")
    with pytest.warns(UserWarning, match=r"Checkpoint of epoch 1 .* skipped: Too many levels of symbolic links$"):
        assert find_checkpoint(tmp_path) is None


def test_find_checkpoint_refuses_a_remote_folder():
    with pytest.raises(ValueError, match="`ckpt_dir` must be a local path, got an address that begins with 's3://'"):
        find_checkpoint("s3://bucket/models")
