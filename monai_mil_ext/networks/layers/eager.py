"""Check whether an operation may use kernels that only an eager program on a CPU can run."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from monai_mil_ext.utils import is_on_host

__all__ = ["is_eager_on_host"]


def is_eager_on_host(x: Tensor) -> bool:
    """Return whether ``x`` lies on the host and an eager program computes at most reverse-mode gradients of it.

    It is False while a program is traced, exported or compiled, within the transforms of ``torch.func``, and for a
    tensor with a tangent of forward-mode differentiation.

    Example:
        >>> is_eager_on_host(torch.ones(2)), torch.func.vmap(lambda x: x if is_eager_on_host(x) else -x)(torch.ones(2))
        (True, tensor([-1., -1.]))
    """
    if not is_on_host(x) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch._C._are_functorch_transforms_active() and forward_ad.unpack_dual(x).tangent is None
