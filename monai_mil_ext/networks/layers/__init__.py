"""Tensor operations and single layers."""

__all__: list[str] = []
