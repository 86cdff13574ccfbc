"""``python -m monai_mil_ext``: versions, optional parts, GPUs, and a short test of this installation."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch

import monai_mil_ext
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks import nets
from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["main"]

CORE = ("monai", "torch", "numpy", "pytorch-ignite", "h5py", "itk", "nibabel", "pydicom", "scikit-learn")
EXTRAS = {  # what a user installs, and the packages that it brings
    "dicom": ("highdicom",),
    "encoders": ("transformers", "einops"),
    "excel": ("openpyxl",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "timm": ("timm",),
    "wsi": ("openslide-python", "openslide-bin", "tifffile", "imagecodecs"),
    "zarr": ("zarr", "pyarrow"),
}
IMPORTED = {  # what tells that a package works, where its own name does not
    "openslide-bin": "openslide_bin",
    "openslide-python": "openslide",
    "transformers": "transformers.modeling_utils",
}


def main() -> int:
    """Print it all; the exit status is the number of tests that failed, and that each optional part imports is one."""
    print(f"monai_mil_ext {monai_mil_ext.__version__}, {RESEARCH_USE}; Python {platform.python_version()}")
    print(f"  {platform.platform()}; " + ", ".join(f"{name} {_version(name)}" for name in CORE))
    there = {name: _version(name) for names in EXTRAS.values() for name in names}
    faults = {name: _fault(name) for name, found in there.items() if found}
    for extra, names in EXTRAS.items():
        parts = (f"{name} {there[name] or 'not installed'}{faults.get(name, '')}" for name in names)
        print(f"  [{extra}] " + ", ".join(parts))
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    for gpu in gpus:
        found = torch.cuda.get_device_properties(gpu)
        print(f"  {gpu}: {found.name}, {found.total_memory / 2**30:.0f} GiB")
    if not gpus:
        print("  no GPU that this build of PyTorch can use")
    runs = [(device, name) for device in (torch.device("cpu"), *gpus) for name in TESTS]
    failed = sum(not _holds(f"{name} on {device}", TESTS[name], device) for device, name in runs)
    failed += sum(map(bool, faults.values()))
    print(f"{failed} of {len(runs) + len(faults)} tests failed" if failed else "all well")
    return failed


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _fault(name: str) -> str:
    """Why an installed package does not import; nothing where it does."""
    try:
        import_module(IMPORTED.get(name, name))
    except Exception as error:
        return f" does not import ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return ""


def _holds(title: str, test: Callable[[torch.device], None], device: torch.device) -> bool:
    start = time.perf_counter()
    try:
        test(device)
    except Exception as error:
        print(f"  {title}: FAILED, {type(error).__name__}: {error}")
        return False
    print(f"  {title}: ok, {time.perf_counter() - start:.2f} s")
    return True


def _padding(device: torch.device) -> None:
    """A bag in a padded batch has the logits that it has alone, in every network that takes features."""
    torch.manual_seed(0)
    features, mask = torch.randn(2, 9, 64, device=device), torch.ones(2, 9, dtype=torch.bool, device=device)
    mask[1, 5:] = False
    for name in ("ABMIL", "ACMIL", "ASMIL", "MaxMIL", "MeanMIL", "QGMIL", "SmAP", "TransMIL"):
        net = getattr(nets, name)(in_features=64, num_classes=2).eval().to(device)
        with torch.no_grad():
            together, alone = net(features, mask)[1:], net(features[1:, :5])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4, msg=(name + ": {}").format)


def _training(device: torch.device) -> None:
    """Twenty steps lower the loss."""
    torch.manual_seed(0)
    net = nets.ABMIL(in_features=8, num_classes=2).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    features, labels = torch.randn(8, 9, 8, device=device), torch.arange(8, device=device) % 2
    losses = []
    for _ in range(20):
        losses.append(torch.nn.functional.cross_entropy(net(features), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"a loss must fall, got {losses[0].item():.4f} and then {losses[-1].item():.4f}")


def _guidance(device: torch.device) -> None:
    """Normal Guidance of one bell is 0, and of two the value that its docstring tells."""
    bell = torch.softmax(-((torch.arange(48.0, device=device) - 24) ** 2) / 50, dim=0).view(1, 48, 1)
    torch.testing.assert_close(NormalGuidanceLoss()(bell), torch.zeros((), device=device), atol=1e-3, rtol=0)
    two = (bell.roll(-12, dims=1) + bell.roll(12, dims=1)) / 2
    torch.testing.assert_close(NormalGuidanceLoss()(two), torch.tensor(0.317, device=device), atol=1e-3, rtol=0)


TESTS = {"networks with padding": _padding, "training": _training, "Normal Guidance": _guidance}

if __name__ == "__main__":
    sys.exit(main())
