"""Tests of EncodeInstances of tensors and of data sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn
from torch.testing import assert_close
from torch.utils.data import Dataset

from monai_mil_ext.transforms import EncodeInstances, EncodeInstancesd


def encoder():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@given(n=st.integers(1, 9), chunk_size=st.integers(1, 10))
def test_encode_instances_does_not_depend_on_the_chunk_size(n, chunk_size):
    net, bag = encoder(), torch.randn(n, 1, 5, 5)
    features = EncodeInstances(net, chunk_size)(bag)
    assert_close(features, net.eval()(bag))
    assert features.dtype == torch.float32


def test_encode_instances_restores_the_encoder():
    net = encoder().train()
    net[1].eval()  # frozen by hand
    before = {k: v.clone() for k, v in net.state_dict().items()}
    EncodeInstances(net)(torch.randn(3, 1, 5, 5))
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(RuntimeError, match="expected input"):
        EncodeInstances(net)(torch.randn(3, 2, 5, 5))
    assert net.training


def test_encode_instances_returns_features_that_autograd_can_use():
    features = EncodeInstances(encoder())(MetaTensor(torch.randn(3, 1, 5, 5)))
    head = nn.Linear(4, 1)
    head(features).sum().backward()
    assert_close(head.weight.grad[0], features.sum(0))
    assert type(features) is torch.Tensor
    assert not features.requires_grad


class Other(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


@pytest.mark.parametrize(
    ("how", "got"),
    [
        (lambda x: x, r"\(2, 1, 5, 5\)"),
        (lambda x: x.flatten(1)[:1], r"\(1, 25\)"),
        (lambda x: (x.flatten(1),), "tuple"),
    ],
)
def test_encode_instances_names_invalid_outputs(how, got):
    with pytest.raises(ValueError, match=rf"`encoder` must give features \(n, F\) of n = 2 instances, got {got}\."):
        EncodeInstances(Other(how))(torch.randn(2, 1, 5, 5))


def test_encode_instances_returns_half_precision_as_float32():
    assert EncodeInstances(Other(lambda x: x.flatten(1).half()))(torch.ones(2, 1, 5, 5)).dtype == torch.float32


def test_encode_instancesd_has_the_arguments_of_the_array_form():
    bag = torch.randn(5, 1, 4, 4)
    out = EncodeInstancesd("image", nn.Flatten(), 2, "cpu")({"image": bag, "label": 1})
    assert torch.equal(out["image"], bag.flatten(1))
    assert out["label"] == 1


class Counted(Dataset):
    """Bag that is read on access."""

    def __init__(self, values, bad=None):
        self.values, self.bad, self.indices = values, bad, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        self.indices.append(index)
        if self.bad is not None and self.bad in range(len(self))[index]:
            raise OSError(5, "no such tile")
        return self.values[index]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_encode_instances_of_a_data_set_equals_that_of_a_tensor(num_workers):
    net, images = encoder(), torch.randint(0, 256, (11, 1, 5, 5), dtype=torch.uint8)
    bag = Counted(images)
    expected = EncodeInstances(net)(images.float() / 255)
    out = EncodeInstancesd("image", net, 4, num_workers=num_workers)({"image": bag})
    assert_close(out["image"], expected)
    assert 0 < out["encode_seconds"] < 60
    assert "encode_seconds" not in EncodeInstancesd("image", net)({"image": images})
    if not num_workers:
        assert [len(range(11)[index]) for index in bag.indices] == [4, 4, 3]
    with pytest.raises(OSError, match=r"^\[Errno 5\] no such tile$"):
        EncodeInstances(net, 4, num_workers=num_workers)(Counted(images, bad=9))


def test_encode_instances_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`bag` must have .* with an instance, got <.*Counted"):
        EncodeInstances(encoder())(Counted(torch.ones(0, 1, 5, 5)))
    with pytest.raises(ValueError, match="`num_workers` must be an integer from 0, got -1"):
        EncodeInstances(encoder(), num_workers=-1)
    with pytest.raises(ValueError, match=r"`bag` must have shape \(N, \.\.\.\) with an instance, got \(0, 1, 5, 5\)"):
        EncodeInstances(encoder())(torch.ones(0, 1, 5, 5))
    with pytest.raises(ValueError, match="`chunk_size` must be a positive integer, got 0"):
        EncodeInstances(encoder(), 0)


def test_encode_instances_logs_how_much_of_a_long_bag_is_done(monkeypatch, caplog):
    caplog.set_level("INFO", logger="monai_mil_ext")
    encode = EncodeInstances(nn.Flatten(), chunk_size=4)
    encode(torch.rand(10, 1, 2, 2))
    assert caplog.messages == []
    monkeypatch.setattr("monai_mil_ext.transforms.bags.encode_instances.LOG_INTERVAL", 0.0)
    encode(torch.rand(10, 1, 2, 2))
    assert [text.split(";")[0] for text in caplog.messages] == [f"Encoded {n} of 10 instances" for n in (4, 8)]
    assert caplog.messages[0].endswith("; about 0 s remain.")


def test_chunks_of_a_tensor_are_small_on_a_cpu_and_those_of_other_bags_are_not():
    sizes = []

    class Count(nn.Flatten):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    EncodeInstances(Count())(torch.rand(10, 2))
    assert sizes == [4, 4, 2]
    sizes.clear()
    EncodeInstances(Count(), chunk_size=6)(torch.rand(10, 2))
    assert sizes == [6, 4]
