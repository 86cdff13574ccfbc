"""Networks on bags of MNIST digits, where the truth of every instance is known: ``scripts/reproduce mnist_bags``."""

__all__: list[str] = []
