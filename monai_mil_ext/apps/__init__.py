"""What runs on top of the package: nothing below imports it, and ``import monai_mil_ext`` does not either."""

__all__: list[str] = []
