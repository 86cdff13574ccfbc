"""Tests of the complete loss of ACMIL under DDP: two processes with different bags and masking."""

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionPriorHandler, BranchLossHandler
from monai_mil_ext.losses import BranchDiversityLoss
from tests.handlers.networks import acmil, acmil_terms
from tests.handlers.training import bag_batches, gradients, in_float64, make_trainer

BATCHES = [in_float64(bag_batches(2, sizes=(7, 4), seed=1)), in_float64(bag_batches(2, sizes=(3, 9, 5), seed=2))]


def train(rank, folder):
    """Train two steps in a process: in the second, DDP detects weights that got no gradient in the first."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net, diversity = acmil(), AttentionPriorHandler(BranchDiversityLoss(), "mask_top", name="branch_diversity")
    trainer = make_trainer(DistributedDataParallel(net), BATCHES[rank], BranchLossHandler(), diversity, lr=0)
    torch.manual_seed(rank)
    trainer.run()
    torch.save({"gradients": gradients(net), "term": trainer.state.metrics["branch_loss"]}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_branch_loss_gradients_and_term_are_means_over_processes(tmp_path):
    torch.multiprocessing.start_processes(train, (str(tmp_path),), nprocs=2, start_method="forkserver")
    net, last, branch = acmil().train(), [], []
    for rank, batches in enumerate(BATCHES):
        torch.manual_seed(rank)
        terms = [acmil_terms(net, batch) for batch in batches]
        last.append(sum(terms[-1]))
        branch += [term[1] for term in terms]
    torch.stack(last).mean().backward()
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_close(result["gradients"], gradients(net), rtol=1e-12, atol=1e-12)
        assert_close(result["term"], torch.stack(branch).mean().item())
