"""Rule that turns the interval of a difference into a verdict; it was fixed before anything was trained."""

from __future__ import annotations

from .settings import read_settings

__all__ = ["NOT_RUN", "RULE", "verdict"]

NOT_RUN = "not run"
RULE = (
    "Rule: a claim is *reproduced* if the 95 % interval of the difference lies on the claimed side of zero, "
    "*contradicted* if it lies on the other side, and otherwise *no difference seen*. That something is kept is "
    "reproduced if the interval lies above -{margin}, contradicted if it lies below zero, and otherwise *undecided*. "
    "With fewer than {min_seeds} seeds it is *not run*. The interval is paired: it draws seeds, and within them scans, "
    "2,000 times; a measure of a whole training draws seeds only."
)


def verdict(sign: int, interval: tuple[float, float] | None, num_seeds: int) -> str:
    """Return the verdict on a claim.

    Args:
        sign: claimed sign of the difference, 0 if nothing is to be lost.
        interval: limits of the difference, or None without any.
        num_seeds: number of seeds.

    Example:
        >>> verdict(1, (0.01, 0.2), 5), verdict(-1, (0.01, 0.2), 5), verdict(1, (-0.1, 0.2), 5), verdict(0, (0, 1), 5)
        ('reproduced', 'contradicted', 'no difference seen', 'reproduced')
    """
    if interval is None or num_seeds < read_settings()["min_seeds"]:
        return NOT_RUN
    low, high = interval
    if sign == 0:
        if low > -read_settings()["margin"]:
            return "reproduced"
        return "contradicted" if high < 0 else "undecided"
    low, high = sorted((sign * low, sign * high))
    if low > 0:
        return "reproduced"
    return "contradicted" if high < 0 else "no difference seen"
