"""Floating-point operations of a call, and what the hardware can do: products of matrices and copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from monai_mil_ext.apps.study import describe_machine

__all__ = [
    "NO_BFLOAT16",
    "copy_rate",
    "count_flops",
    "describe_processor",
    "flop_counter",
    "has_bfloat16",
    "matrix_rate",
]

NO_BFLOAT16 = "this CPU has no bfloat16 instructions"

Wait = Callable[[], object]


def _forward(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


ON_HOST = {  # PyTorch counts those of CUDA
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}


def flop_counter() -> FlopCounterMode:
    """Return a mode that counts the floating-point operations of the products of matrices, in both directions."""
    return FlopCounterMode(display=False, custom_mapping=ON_HOST)


def count_flops(call: Callable[[], object]) -> int:
    """Count the floating-point operations of the products of matrices of a call, in both directions."""
    with flop_counter() as counter:
        call()
    return int(counter.get_total_flops())


def matrix_rate(seconds: Callable[[Wait], float], size: int, dtype: torch.dtype) -> float:
    """Measure the operations a second of a product of square matrices; ``seconds`` measures a call."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(5))


def copy_rate(seconds: Callable[[Wait], float], size: int) -> float:
    """Measure the bytes a second that a copy reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source)) for _ in range(5))


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16; without it, products are emulated, and slower than float32."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def describe_processor() -> str:
    """Return the machine with the instructions that decide how fast matrices are multiplied, and PyTorch's version."""
    wide = "AVX-512" if torch.cpu.get_capabilities().get("avx512_f", False) else "no AVX-512"
    half = "bfloat16" if has_bfloat16() else "no bfloat16"
    return f"{describe_machine()}, {wide}, {half}, torch {torch.__version__}"
