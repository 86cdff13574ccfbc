"""Tests of BagNet, and of BagOutputWrapper with MONAI's engines and PyTorch's DDP."""

import pytest
import torch
from monai.bundle import ckpt_export
from monai.data import decollate_batch
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets import ABMIL, BagNet, BagOutput, BagOutputWrapper

X, MASK = torch.linspace(-1, 1, 40).sin().view(2, 5, 4), torch.arange(5) < torch.tensor([[5], [3]])


class LogitsOnly(BagNet):
    def forward_bag(self, x, mask=None):
        return BagOutput(x.mean(1), None, None, None)


def test_bag_net_requires_forward_bag():
    with pytest.raises(TypeError, match=r"abstract method '?forward_bag"):
        BagNet()


def test_bag_output_has_no_defaults():
    with pytest.raises(TypeError, match="missing 3 required positional arguments"):
        BagOutput(X)
    assert BagOutput._fields == ("logits", "attention", "scores", "embedding")


def test_bag_output_wrapper_returns_available_outputs():
    net = ABMIL(4, 2)
    parts = BagOutputWrapper(net)(X, MASK)
    assert parts.keys() == {"logits", "attention", "scores", "embedding"}
    assert_close(tuple(parts.values()), tuple(net.forward_bag(X, MASK)), rtol=0, atol=0)
    assert BagOutputWrapper(LogitsOnly())(X).keys() == {"logits"}


def loss(parts, label, mask=MASK):
    entropy = torch.special.entr(masked_softmax(parts["scores"], mask)).sum()
    return nn.functional.cross_entropy(parts["logits"], label) - entropy


def test_bag_output_wrapper_trains_in_an_engine_on_more_than_logits():
    net = BagOutputWrapper(ABMIL(4, 2))
    before = net.net.attend.score.weight.clone()
    batch = {"image": X, "mask": MASK, "label": torch.tensor([0, 1])}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        loss_function=loss,
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        decollate=False,
    )
    trainer.run()
    first, second = decollate_batch({"pred": trainer.state.output["pred"]})
    assert first["pred"].keys() == {"logits", "attention", "scores", "embedding"}
    assert second["pred"]["attention"].shape == (5, 1)
    assert not torch.equal(before, net.net.attend.score.weight)


def test_bag_output_wrapper_trains_under_ddp():
    net = ABMIL(4, 2, hidden_size=3)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(BagOutputWrapper(net))
        for _ in range(2):  # DDP reports a parameter without gradient in the second forward pass
            loss(parallel(X, MASK), torch.tensor([0, 1])).backward()
        del parallel  # its reducer holds the group, and freeing the group from there can deadlock on the GIL
    finally:
        distributed.destroy_process_group()
    assert all(p.grad is not None for p in net.parameters())


def test_bag_net_is_exported_by_monai(tmp_path):
    net = ABMIL(4, 2).eval()
    meta, config, weights, program = (
        tmp_path / name for name in ("metadata.json", "train.json", "model.pt", "model.ts")
    )
    meta.write_text("{}")
    config.write_text('{"net": {"_target_": "monai_mil_ext.networks.nets.ABMIL", "in_features": 4, "num_classes": 2}}')
    torch.save(net.state_dict(), weights)
    ckpt_export(net_id="net", filepath=program, ckpt_file=weights, meta_file=str(meta), config_file=str(config))
    assert_close(torch.jit.load(program)(X, MASK), net(X, MASK))
