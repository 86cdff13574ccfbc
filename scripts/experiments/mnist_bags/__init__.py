"""Networks on bags of MNIST digits, with known instance labels: ``scripts/reproduce mnist_bags``."""

__all__: list[str] = []
