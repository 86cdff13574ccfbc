"""What only a device can show: no waits, half precision, pinned batches. ``scripts/device_check`` runs these tests."""

import contextlib

import pytest
import torch
from monai.data import DataLoader, Dataset
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.data import BagCollate
from tests.contracts.net_cases import MASK, C, F, X, every_net
from tests.helpers import DEVICE, fill

pytestmark = pytest.mark.gpu
LABEL = torch.tensor([0, C - 1])
HALF = torch.float16 if DEVICE == "cuda" else torch.bfloat16  # a CPU has no LSTM in float16


@contextlib.contextmanager
def no_waits():
    """Raise an error where the program waits for the device; a host has nothing to wait for."""
    if DEVICE == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def on_device(*tensors, dtype=torch.float32):
    """Return tensors on the device, floating ones with a type."""
    return [t.to(DEVICE, dtype) if t.is_floating_point() else t.to(DEVICE) for t in tensors]


def is_trained(net):
    return any(p.requires_grad for p in net.parameters())


@every_net
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_a_step_of_training_does_not_wait(make, masked):
    net, (x, mask, label) = make().to(DEVICE).train(), on_device(X, MASK, LABEL)
    if not is_trained(net):
        pytest.skip("has no weights")
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)

    def step():
        optimizer.zero_grad()
        cross_entropy(net(x, mask if masked else None), label).backward()
        optimizer.step()

    step()  # kernels are loaded, and states of the optimizer created
    before = [p.detach().clone() for p in net.parameters()]
    with no_waits():
        step()
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@every_net
def test_half_precision_is_near_to_single(make):
    net, (x, mask) = fill(make()).to(DEVICE).float(), on_device(X, MASK)
    single = net(x, mask)
    with torch.autocast(DEVICE, HALF):
        half = net(x, mask)
    assert half.isfinite().all()
    # rounding may select another instance, where a network selects some
    assert_close(half.float(), single, rtol=0.05, atol=0.05)


@every_net
def test_a_scaler_skips_an_infinite_gradient_and_goes_on(make):
    net, (x, mask, label) = make().to(DEVICE).train(), on_device(X, MASK, LABEL)
    if not is_trained(net):
        pytest.skip("has no weights")
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**10)
    weights = [[p.detach().clone() for p in net.parameters()]]
    for infinite in (True, False):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, HALF):
            loss = cross_entropy(net(x, mask).float(), label)
        scaler.scale(loss * torch.inf if infinite else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        weights.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights[:2], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(*weights[1:], strict=True))
    assert all(w.isfinite().all() for w in weights[-1])
    assert scaler.get_scale() == 2.0**9


def test_pinned_batches_arrive_whole():
    bags = [{"image": torch.randn(n, F), "label": torch.tensor(n % C)} for n in (3, 7, 1, 5)]
    plain, pinned = (
        list(DataLoader(Dataset(bags), batch_size=2, collate_fn=BagCollate("image"), pin_memory=pin))
        for pin in (False, DEVICE == "cuda")
    )
    for expected, batch in zip(plain, pinned, strict=True):
        assert batch["image"].is_pinned() == batch["mask"].is_pinned() == (DEVICE == "cuda")
        moved = {key: value.to(DEVICE, non_blocking=True) for key, value in batch.items() if torch.is_tensor(value)}
        assert_close({key: value.cpu() for key, value in moved.items()}, {key: expected[key] for key in moved})
