"""The dear forms of two laws, which the slow set runs: other programs than PyTorch's own compute the network."""

import io
import os
import shutil

import onnxruntime
import torch
from monai.networks.utils import convert_to_onnx
from torch.testing import assert_close

from tests.contracts.laws import DYNAMIC, EXCEPTIONS, it_compiles_whole, it_exports_for_any_bag_size
from tests.helpers import fill

SIZES = (1, [1]), (9, [9, 1, 0]), (40, [17, 40])  # N, and how many instances of each bag are real


def it_runs_in_onnxruntime(make, x, mask):
    """Through PyTorch's exporter with a mask and through MONAI's without, for other N and B than those exported."""
    net, x, shape = fill(make()).float(), x.float(), {0: DYNAMIC, 1: DYNAMIC}
    with torch.no_grad():
        shapes = {"x": shape, "mask": shape}
        exported = torch.onnx.export(net, (x, mask), dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False)
        masked = session(exported.model_proto)
        axes = {"x": {0: "batch", 1: "instances"}}  # what a user gives to `monai.bundle onnx_export`
        plain = session(convert_to_onnx(net, [x], input_names=["x"], output_names=["logits"], dynamic_axes=axes))
        for n, counts in SIZES:
            real = torch.arange(n) < torch.tensor(counts).unsqueeze(1)
            bags = torch.randn(*real.shape, x.shape[2], generator=torch.Generator().manual_seed(n))
            agree(run(masked, x=bags.where(real[..., None], 0), mask=real), net(bags, real))
            agree(run(plain, x=bags), net(bags))


def session(model):
    """A model in onnxruntime, which says nothing below an error."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = io.BytesIO(model.SerializeToString())
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


def run(runtime, **inputs):
    """The first output for inputs by name."""
    return torch.from_numpy(runtime.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def agree(logits, expected):
    """To 1e-5 of the largest logit."""
    assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def it_runs_as_machine_code(make, x, mask):
    """Compiled by inductor, outputs and gradients, once for all sizes."""
    compiler = os.environ.get("CXX", "g++")
    assert shutil.which(compiler), f"inductor needs a C++ compiler: {compiler} is not there (Debian's package is g++)"
    it_compiles_whole(make, x, mask, backend="inductor", sizes=(5, 3))


EXCEPTIONS[it_runs_in_onnxruntime] = EXCEPTIONS[it_exports_for_any_bag_size]
FULL = [it_runs_in_onnxruntime, it_runs_as_machine_code]
