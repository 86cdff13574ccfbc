"""What monailabel imports of torchvision."""


def make_grid(*_: object, **__: object) -> None:
    """Say that this is a stand-in."""
    raise ImportError("torchvision is not installed")


save_image = make_grid
