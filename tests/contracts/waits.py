"""Counts the places where a program would wait for a device, on tensors of the host."""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# what reads a value, or has a shape that depends on values
KERNELS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim"}
KERNELS |= {"unique_consecutive", "lift_fresh", "bincount", "repeat_interleave.Tensor"}
METHODS = {"tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"}


class WaitCounter(TorchDispatchMode):
    """Counter of kernels for whose result a program waits, and of tensors made of values of the host."""

    def __init__(self):
        super().__init__()
        self.found = Counter()
        self.methods = _Methods(self.found)

    def __enter__(self):
        self.methods.__enter__()
        return super().__enter__()

    def __exit__(self, *args):
        super().__exit__(*args)
        return self.methods.__exit__(*args)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        indices = args[1] if name.startswith(("index.Tensor", "index_put")) else ()
        masks = [i for i in indices if isinstance(i, torch.Tensor) and i.dtype == torch.bool]
        if name.split(".")[0] in KERNELS or name in KERNELS or masks:
            self.found[_place(name)] += 1
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Counter of methods that read values without a kernel."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("tolist", "cpu", "numpy"):
            self.found[_place(name)] += 1
        return func(*args, **(kwargs or {}))


def _place(name):
    """Return the name of what waits with the innermost place in the package that calls it."""
    frame = sys._getframe(2)
    while frame is not None and "monai" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{name} in " + ("a test" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")


def count_as_device(monkeypatch):
    """Let the package treat tensors of the host as those of a device."""
    for name, module in list(sys.modules.items()):
        if name.startswith("monai_mil_ext") and hasattr(module, "is_on_host"):
            monkeypatch.setattr(module, "is_on_host", lambda values: False)
