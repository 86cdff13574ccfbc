"""Tests of the classes of NVIDIA FLARE that jobs use; tests/test_imports.py has the import without ``nvflare``."""

from monai_mil_ext.apps.federated import _flare


def test_flare_has_the_classes():
    found = {name: getattr(_flare, name) for name in _flare.__all__}
    assert [name for name, part in found.items() if not part.__module__.startswith("nvflare.")] == []
