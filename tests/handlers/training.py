"""Small MONAI trainer for tests of handlers, and processes to run it in."""

import multiprocessing

import torch
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from torch import nn

from tests.helpers import fill

F = 6
CLASSES = 2

# processes forked from a server that has all imports but has computed nothing, so they start fast and have no threads
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.handlers.resumable_run"])


def bag_batches(count=4, sizes=(7, 4, 5), seed=0):
    """Return padded batches with NaN at padding."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(sizes)) < torch.tensor(sizes).unsqueeze(-1)
    return [
        {
            "image": torch.randn(*mask.shape, F, generator=generator).masked_fill(~mask.unsqueeze(-1), torch.nan),
            "mask": mask,
            "label": torch.randint(CLASSES, (len(sizes),), generator=generator),
        }
        for _ in range(count)
    ]


def patch_batches(count=4, batch_size=3, seed=0):
    """Return batches (B, N, F, 1, 1) without mask for MONAI's MILModel."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randn(batch_size, 5, F, 1, 1, generator=generator),
            "label": torch.randint(CLASSES, (batch_size,), generator=generator),
        }
        for _ in range(count)
    ]


def without_mask(batches):
    """Return the batches without their masks."""
    return [{key: value for key, value in batch.items() if key != "mask"} for batch in batches]


def in_float64(batches):
    """Return the batches with instances in float64."""
    return [batch | {"image": batch["image"].double()} for batch in batches]


def make_trainer(network, batches, *handlers, max_epochs=1, lr=0.1, **options):
    """Return a trainer that passes the mask to the network if the batches have one."""
    if isinstance(batches, list) and "mask" in batches[0]:
        options.setdefault("prepare_batch", PrepareBatchExtraInput({"mask": "mask"}))
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=handlers,
        **options,
    )


def hook_count(network):
    """Return the number of forward hooks of all kinds of a network."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs")
    return sum(len(getattr(module, name)) for module in network.modules() for name in names)


def gradients(network):
    """Return the gradient of every parameter by name."""
    return {name: p.grad for name, p in network.named_parameters()}


class SoftmaxInside(nn.Module):
    """Foreign network without mask whose submodule ``attend`` returns attention (B, N) after the softmax."""

    def __init__(self):
        super().__init__()
        self.attend = nn.Sequential(nn.Linear(F, 1), nn.Flatten(1), nn.Softmax(1))
        self.classify = nn.Linear(F, CLASSES)
        fill(self)

    def forward(self, x):
        """Compute logits of bags (B, N, F)."""
        return self.classify((self.attend(x).unsqueeze(-1) * x).sum(1))
