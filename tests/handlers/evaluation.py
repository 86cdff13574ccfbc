"""Small MONAI evaluator for tests of handlers, in one process or several."""

import torch
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.transforms import Activationsd, Compose

from monai_mil_ext.data import BagCollate
from monai_mil_ext.networks.nets import ABMIL, BagOutputWrapper
from monai_mil_ext.transforms import UnpackBagOutputd
from tests.handlers.training import F
from tests.helpers import fill

KEYS = ("image", "instance_label", "coords")


def bags(count=5, seed=0):
    """Return bags of different sizes with instance labels; every second bag is positive."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for i in range(count):
        n = 4 + (3 * i) % 5
        lesions = torch.zeros(9, dtype=torch.bool)
        lesions[1 : 1 + 2 * (i % 2)] = True
        items.append(
            {
                "image": torch.randn(n, F, generator=generator),
                "coords": torch.arange(n)[:, None],
                "instance_label": lesions[:n].long(),
                "lesions": lesions,
                "label": i % 2,
                "case_id": f"case_{i}",
                "patient": f"p{i // 2}",
            }
        )
    return items


def make_evaluator(items, *handlers, net=None, batch_size=1, sampler=None, **options):
    """Return an evaluator of ABMIL on ``items`` with probabilities and attention as output, one item per bag."""
    loader = DataLoader(Dataset(items), batch_size=batch_size, sampler=sampler, collate_fn=BagCollate(KEYS))
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=loader,
        network=BagOutputWrapper(net or fill(ABMIL(F, 2, hidden_size=4))),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        postprocessing=Compose([UnpackBagOutputd("pred"), Activationsd("pred", softmax=True)]),
        val_handlers=handlers,
        **options,
    )
