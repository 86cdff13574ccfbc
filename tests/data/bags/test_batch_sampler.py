"""Tests of BagBatchSampler: properties of every epoch, and use in MONAI's loader and trainer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset

from monai_mil_ext.data import BagBatchSampler, BagCollate, bag_sizes, write_bag
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import make_trainer

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=40)
KINDS = st.sampled_from(["padded", "packed"])


def cost_of(batch, sizes, kind):
    batch_sizes = [sizes[i] for i in batch]
    return sum(batch_sizes) if kind == "packed" else max(batch_sizes) * len(batch_sizes)


@given(sizes=SIZES, budget=st.integers(1, 200), kind=KINDS, shuffle=st.booleans(), seed=st.integers(0, 99))
def test_bag_batch_sampler_yields_every_bag_once_within_the_limit(sizes, budget, kind, shuffle, seed):
    sampler = BagBatchSampler(sizes, budget, cost=kind, shuffle=shuffle, seed=seed, max_bags=7)
    for _ in range(3):
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
        assert len(batches) == len(sampler)
        assert all(len(batch) == 1 or cost_of(batch, sizes, kind) <= budget for batch in batches)
        assert all(len(batch) <= 7 for batch in batches)


@given(
    sizes=SIZES,
    budget=st.integers(1, 200),
    kind=KINDS,
    world=st.integers(1, 5),
    drop=st.booleans(),
    shuffle=st.booleans(),
)
def test_bag_batch_sampler_divides_an_epoch_among_processes(sizes, budget, kind, world, drop, shuffle):
    options = {"cost": kind, "shuffle": shuffle, "drop_last": drop, "num_replicas": world}
    try:
        samplers = [BagBatchSampler(sizes, budget, rank=rank, **options) for rank in range(world)]
    except ValueError:
        alone = BagBatchSampler(sizes, budget, cost=kind, shuffle=shuffle)
        assert len(alone) < world
        assert drop or len(sizes) < world
        return
    for _ in range(2):
        shares = [list(sampler) for sampler in samplers]
        assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
        seen = [i for share in shares for batch in share for i in batch]
        assert len(seen) == len(set(seen))
        lengths = {len(share) for share in shares}
        if drop:
            assert len(lengths) == 1
        else:
            assert set(seen) == set(range(len(sizes)))
            # one batch less only if there are too few bags
            assert len(lengths) == 1 or (max(lengths) - min(lengths) == 1 and len(sizes) < max(lengths) * world)


def test_bag_batch_sampler_uses_the_process_group(monkeypatch):
    for name, value in (("is_initialized", True), ("get_world_size", 3), ("get_rank", 1)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    sampler = BagBatchSampler(list(range(1, 10)), 20)
    assert list(sampler) == list(BagBatchSampler(list(range(1, 10)), 20, num_replicas=3, rank=1))
    assert (sampler.num_replicas, sampler.rank) == (3, 1)


def test_bag_batch_sampler_steps_have_similar_sizes_in_all_processes():
    sizes = np.random.default_rng(0).integers(1, 100, 300).tolist()
    shares = [list(BagBatchSampler(sizes, 300, num_replicas=4, rank=rank)) for rank in range(4)]
    longest = [[max(sizes[i] for i in batch) for batch in step] for step in zip(*shares, strict=True)]
    assert np.median([max(step) / min(step) for step in longest]) < 1.5


def test_bag_batch_sampler_drops_other_bags_in_each_epoch():
    sampler = BagBatchSampler([50] * 9, 50, drop_last=True, num_replicas=4, rank=0)
    others = [BagBatchSampler([50] * 9, 50, drop_last=True, num_replicas=4, rank=rank) for rank in (1, 2, 3)]
    missing = set()
    for _ in range(40):
        seen = {i for replica in (sampler, *others) for batch in replica for i in batch}
        assert len(seen) == 8
        missing |= set(range(9)) - seen
    assert missing == set(range(9))


@given(sizes=SIZES, kind=KINDS, seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_bag_batch_sampler_epoch_depends_on_seed_and_index_only(sizes, kind, seed, epoch):
    sampler, other = (BagBatchSampler(sizes, 100, cost=kind, seed=seed) for _ in range(2))
    for _ in range(epoch):
        list(sampler)
    other.load_state_dict(sampler.state_dict())
    third = list(sampler)
    assert list(other) == third
    sampler.set_epoch(epoch)
    assert list(sampler) == third
    assert sampler.state_dict() == {"epoch": epoch + 1}


def test_bag_batch_sampler_counts_unfinished_iterations():
    sampler = BagBatchSampler(list(range(1, 30)), 60)
    next(iter(sampler))
    assert sampler.epoch == 1


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_bag_batch_sampler_epochs_and_seeds_differ(kind):
    sizes = np.random.default_rng(0).integers(1, 50, 60).tolist()
    sampler, other = BagBatchSampler(sizes, 100, cost=kind), BagBatchSampler(sizes, 100, cost=kind, seed=1)
    first = list(sampler)
    assert first != list(sampler)
    assert first != list(other)


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_bag_batch_sampler_loses_no_bag(kind):
    """Some orders of 600 bags need more batches than the first draws, which set the number of every epoch."""
    sizes = np.random.default_rng(3).integers(1, 60, 600).tolist()
    sampler = BagBatchSampler(sizes, 100, cost=kind)
    for _ in range(60):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(600))


def test_bag_batch_sampler_mixes_bags_of_equal_size():
    sampler = BagBatchSampler([10] * 12, 20)
    met = {frozenset(batch) for _ in range(400) for batch in sampler}
    assert len(met) == 12 * 11 // 2


def test_bag_batch_sampler_pads_little():
    """For 400 bags of 500 to 8,000 instances, padding costs a factor of 1.18, against 2.3 for random batches."""
    sizes = np.exp(np.random.default_rng(0).uniform(np.log(500), np.log(8000), 400)).astype(int).tolist()
    sampler = BagBatchSampler(sizes, 32_000)
    padded = sum(cost_of(batch, sizes, "padded") for batch in sampler)
    assert padded / sum(sizes) < 1.25
    partners = {j for _ in range(30) for batch in sampler if 0 in batch for j in batch} - {0}
    assert len(partners) > 40


def test_bag_batch_sampler_without_shuffle_starts_with_the_largest():
    assert list(BagBatchSampler([3, 100, 4, 2, 900], 200, shuffle=False)) == [[4], [1, 2], [0, 3]]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sizes": [1, 0]}, r"`sizes` must be positive integers, one per bag, got \[1, 0\]"),
        ({"sizes": [1.5]}, r"`sizes` must be positive integers, one per bag, got \[1.5\]"),
        ({"max_instances": 0}, "`max_instances` must be a positive integer, got 0"),
        ({"max_bags": 0}, "`max_bags` must be a positive integer, got 0"),
        ({"cost": "square"}, "`cost` must be one of 'padded', 'packed', got 'square'"),
        ({"num_replicas": 2, "rank": 2}, "`rank` must be from 0 to 1, got 2"),
        ({"num_replicas": 4, "rank": 0}, "`sizes` must give a batch for each of 4 processes, got 3 bags"),
        ({"num_replicas": 2, "rank": 0, "drop_last": True}, "`sizes` must give a batch for each of 2 processes, got 3"),
    ],
)
def test_bag_batch_sampler_refuses_invalid_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        BagBatchSampler(**{"sizes": [1, 2, 3], "max_instances": 9, **options})


def test_bag_sizes_from_four_kinds_of_items(tmp_path):
    write_bag(tmp_path / "a.h5", {"features": np.zeros((7, 2))})
    file = str(tmp_path / "a.h5")
    items = [
        {"image": file},
        {"image": file, "start": 2, "stop": 4},
        {"image": torch.zeros(5, 2)},
        {"num_instances": 9},
    ]
    assert bag_sizes(items) == [7, 2, 5, 9]
    assert bag_sizes(items, max_instances=6) == [6, 2, 5, 6]


class Seen(Dataset):
    """Dataset that counts how often each bag is read."""

    def __getitem__(self, index):
        self.taken[index] = self.taken.get(index, 0) + 1
        return self.data[index]


def test_bag_batch_sampler_in_a_trainer():
    """MONAI's engines read the length once, so that epochs of changing length would lose or repeat bags."""
    sizes = np.random.default_rng(1).integers(1, 30, 23).tolist()
    data = Seen([{"image": torch.randn(n, 6), "label": torch.tensor(n % 2)} for n in sizes])
    data.taken = {}
    sampler = BagBatchSampler(sizes, 40)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=BagCollate("image"))
    trainer = make_trainer(ABMIL(6, 2, hidden_size=8), loader, max_epochs=10)
    trainer.prepare_batch = lambda batch, *_, **__: (batch["image"], batch["label"], (), {"mask": batch["mask"]})
    trainer.run()
    assert data.taken == dict.fromkeys(range(23), 10)
    assert sampler.state_dict() == {"epoch": 10}


@pytest.mark.parametrize("workers", [0, 2])
def test_bag_batch_sampler_in_yaml(workers):
    config = {
        "imports": ["$import monai_mil_ext", "$import torch"],
        "items": "$[{'image': torch.full((n, 2), float(n)), 'label': n} for n in (3, 100, 4, 2, 90)]",
        "loader": {
            "_target_": "DataLoader",
            "dataset": {"_target_": "Dataset", "data": "@items"},
            "num_workers": workers,
            "batch_sampler": {
                "_target_": "BagBatchSampler",
                "sizes": "$monai_mil_ext.data.bag_sizes(@items)",
                "max_instances": 200,
            },
            "collate_fn": {"_target_": "BagCollate", "keys": "image"},
        },
    }
    loader = ConfigParser(config).get_parsed_content("loader")
    labels = [sorted(batch["label"].tolist()) for batch in loader]
    assert len(labels) == len(loader)
    assert sorted(label for batch in labels for label in batch) == [2, 3, 4, 90, 100]
