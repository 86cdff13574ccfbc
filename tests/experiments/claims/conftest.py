"""The small protocol and the features of noise of the tests of the benchmark."""

from tests.experiments.lesions.conftest import encoded, small

__all__ = ["encoded", "small"]
