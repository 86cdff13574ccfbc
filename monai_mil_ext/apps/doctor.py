"""Report of an installation: versions, optional packages, GPUs and a short self-test."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch

import monai_mil_ext
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.networks import nets
from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["report_installation"]

CORE = ("monai", "torch", "numpy", "pytorch-ignite", "h5py", "itk-io", "nibabel", "scikit-learn", "tensorboard")
EXTRAS = {  # name of the extra: packages that it installs
    "dicom": ("highdicom", "pydicom"),
    "encoders": ("transformers", "einops"),
    "excel": ("openpyxl",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "figures": ("matplotlib",),
    "flare": ("nvflare",),
    "remote": ("fsspec", "s3fs"),
    "scale": ("distributed",),
    "study": ("lifelines", "matplotlib", "optuna", "pandas"),
    "timm": ("timm",),
    "tracking": ("mlflow-skinny",),
    "wsi": ("openslide-python", "openslide-bin", "tifffile", "imagecodecs"),
    "zarr": ("zarr", "pyarrow"),
}
MODULES = {  # module to import for a package whose name does not show that it works
    "mlflow-skinny": "mlflow",
    "openslide-bin": "openslide_bin",
    "openslide-python": "openslide",
    "transformers": "transformers.modeling_utils",
}


def report_installation() -> int:
    """Print the report and return the number of failed tests; importing an optional package counts as a test."""
    print(f"monai_mil_ext {monai_mil_ext.__version__}, {RESEARCH_USE}; Python {platform.python_version()}")
    print(f"  {platform.platform()}; " + ", ".join(f"{name} {_version(name)}" for name in CORE))
    versions = {name: _version(name) for names in EXTRAS.values() for name in names}
    faults = {name: _import_fault(name) for name, installed in versions.items() if installed}
    for extra, names in EXTRAS.items():
        parts = (f"{name} {versions[name] or 'not installed'}{faults.get(name, '')}" for name in names)
        print(f"  [{extra}] " + ", ".join(parts))
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    for gpu in gpus:
        properties = torch.cuda.get_device_properties(gpu)
        print(f"  {gpu}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not gpus:
        print("  no GPU that this build of PyTorch can use")
    runs = [(device, name) for device in (torch.device("cpu"), *gpus) for name in TESTS]
    failed = sum(not _passes(f"{name} on {device}", TESTS[name], device) for device, name in runs)
    failed += sum(map(bool, faults.values()))
    print(f"{failed} of {len(runs) + len(faults)} tests failed" if failed else "all well")
    return failed


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _import_fault(name: str) -> str:
    """Return why an installed package cannot be imported, or an empty string if it can."""
    try:
        import_module(MODULES.get(name, name))
    except Exception as error:
        return f" does not import ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return ""


def _passes(title: str, test: Callable[[torch.device], None], device: torch.device) -> bool:
    start = time.perf_counter()
    try:
        test(device)
    except Exception as error:
        print(f"  {title}: FAILED, {type(error).__name__}: {error}")
        return False
    print(f"  {title}: ok, {time.perf_counter() - start:.2f} s")
    return True


def _padding(device: torch.device) -> None:
    """Check that padding does not change the logits of a bag, for every network on features."""
    torch.manual_seed(0)
    features, mask = torch.randn(2, 9, 64, device=device), torch.ones(2, 9, dtype=torch.bool, device=device)
    mask[1, 5:] = False
    for name in ("ABMIL", "ACMIL", "ASMIL", "MaxMIL", "MeanMIL", "QGMIL", "SmAP", "TransMIL"):
        net = getattr(nets, name)(in_features=64, num_classes=2).eval().to(device)
        with torch.no_grad():
            padded, alone = net(features, mask)[1:], net(features[1:, :5])
        torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4, msg=(name + ": {}").format)


def _training(device: torch.device) -> None:
    """Check that twenty training steps lower the loss."""
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
    """Check Normal Guidance on one bell (0) and on two bells (the value in its docstring)."""
    bell = torch.softmax(-((torch.arange(48.0, device=device) - 24) ** 2) / 50, dim=0).view(1, 48, 1)
    torch.testing.assert_close(NormalGuidanceLoss()(bell), torch.zeros((), device=device), atol=1e-3, rtol=0)
    two_bells = (bell.roll(-12, dims=1) + bell.roll(12, dims=1)) / 2
    torch.testing.assert_close(NormalGuidanceLoss()(two_bells), torch.tensor(0.317, device=device), atol=1e-3, rtol=0)


TESTS = {"networks with padding": _padding, "training": _training, "Normal Guidance": _guidance}
