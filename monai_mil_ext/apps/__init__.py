"""Applications on top of the package: no other part imports them, and neither does ``import monai_mil_ext``."""

__all__: list[str] = []
