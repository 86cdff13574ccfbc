"""Laws of networks for the slow tests: agreement with onnxruntime and with code compiled by inductor."""

import io
import os
import shutil

import onnxruntime
import torch
from monai.networks.utils import convert_to_onnx
from torch.testing import assert_close

from tests.contracts.laws import DYNAMIC, EXCEPTIONS, compiles_without_graph_break, export_serves_any_bag_size
from tests.helpers import fill

SIZES = (1, [1]), (9, [9, 1, 0]), (40, [17, 40])  # N, and the number of valid instances of each bag


def onnxruntime_agrees(make, x, mask):
    """Compare with PyTorch's exporter, with a mask, and MONAI's, without, for other N and B than at export."""
    net, x, shape = fill(make()).float(), x.float(), {0: DYNAMIC, 1: DYNAMIC}
    with torch.no_grad():
        shapes = {"x": shape, "mask": shape}
        exported = torch.onnx.export(net, (x, mask), dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False)
        masked = session(exported.model_proto)
        axes = {"x": {0: "batch", 1: "instances"}}  # as a user passes them to `monai.bundle onnx_export`
        plain = session(convert_to_onnx(net, [x], input_names=["x"], output_names=["logits"], dynamic_axes=axes))
        for n, counts in SIZES:
            real = torch.arange(n) < torch.tensor(counts).unsqueeze(1)
            bags = torch.randn(*real.shape, x.shape[2], generator=torch.Generator().manual_seed(n))
            agree(run(masked, x=bags.where(real[..., None], 0), mask=real), net(bags, real), n)
            agree(run(plain, x=bags), net(bags), n)


def session(model):
    """Load a model in onnxruntime, with messages of errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = io.BytesIO(model.SerializeToString())
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


def run(runtime, **inputs):
    """Run a session on inputs by name and return its first output."""
    return torch.from_numpy(runtime.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def agree(logits, expected, instances):
    """Compare logits to within 1e-5 of the largest, or the rounding of a sum over instances with terms of about one."""
    rounding = instances * torch.finfo(expected.dtype).eps
    assert_close(logits, expected, rtol=0, atol=max(1e-5 * expected.abs().max().item(), rounding))


def inductor_agrees(make, x, mask):
    """Compare outputs and gradients as compiled by inductor, once for all sizes."""
    compiler = os.environ.get("CXX", "g++")
    assert shutil.which(compiler), f"inductor needs a C++ compiler: {compiler} is not there (Debian's package is g++)"
    compiles_without_graph_break(make, x, mask, backend="inductor", sizes=(5, 3))


EXCEPTIONS[onnxruntime_agrees] = EXCEPTIONS[export_serves_any_bag_size]
SLOW = [onnxruntime_agrees, inductor_agrees]
