"""Tests of the cost of handlers beyond the arithmetic of their terms."""

from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks.handler_steps import beyond_arithmetic, epochs


class KernelCounter(TorchDispatchMode):
    """Counter of the kernels that are called."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def kernels(steps):
    counts = {}
    for name, call in epochs(steps).items():
        call()  # makes the optimizer's states
        with KernelCounter() as counter:
            call()
        counts[name] = counter.count
    return counts


def test_handlers_add_few_kernels_to_a_step_beyond_those_of_their_terms():
    once, more = kernels(2), kernels(12)
    step = {name: (more[name] - count) / 10 for name, count in once.items()}
    beyond = step["trainer_both"] - step["trainer"] - (step["loop_both"] - step["loop"])
    assert beyond <= 26  # the five logged values


def test_what_handlers_cost_is_measured():
    cost = beyond_arithmetic(steps=2, turns=6)
    assert cost.interval[0] <= cost.value <= cost.interval[1]
    assert set(epochs(1)) <= {name.removesuffix("_ms") for name in cost.detail}
