"""Tests of AttentionPriorHandler under DDP: two processes with different bags."""

import torch
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL
from tests.handlers.training import CLASSES, F, bag_batches, gradients, make_trainer
from tests.helpers import fill

BATCHES = [bag_batches(1, sizes=(7, 4), seed=1), bag_batches(1, sizes=(3, 9, 5), seed=2)]


def train(rank, folder):
    """Train one step in a process."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = fill(ABMIL(F, CLASSES))
    trainer = make_trainer(
        DistributedDataParallel(net), BATCHES[rank], AttentionPriorHandler(NormalGuidanceLoss(), weight=0.7)
    )
    trainer.run()
    result = {"gradients": gradients(net), "term": trainer.state.metrics["attention_prior"]}
    torch.save(result, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_attention_prior_gradients_and_term_are_means_over_processes(tmp_path):
    torch.multiprocessing.start_processes(train, (str(tmp_path),), nprocs=2, start_method="forkserver")
    net = fill(ABMIL(F, CLASSES)).train()
    losses, terms = [], []
    for (batch,) in BATCHES:
        output = net.forward_bag(batch["image"], batch["mask"])
        terms.append(NormalGuidanceLoss()(output.attention, batch["mask"]))
        losses.append(cross_entropy(output.logits, batch["label"]) + 0.7 * terms[-1])
    torch.stack(losses).mean().backward()
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_close(result["gradients"], gradients(net))
        assert_close(result["term"], torch.stack(terms).mean().item())
