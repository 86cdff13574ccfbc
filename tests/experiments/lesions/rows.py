"""Rows of answers as the benchmark has them, for tests of its tables."""

import numpy as np


def value_rows(seed, shift=0.0, ranks=True):
    """Return twenty rows; the slice values of the positive ones are about ``shift``."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(20):
        row = {"case_id": f"{seed}_{i}", "patient": f"{seed}_{i}", "label": i % 2, "probability": rng.random()}
        if ranks and i % 2:
            row |= {
                name: 0.5 + shift + 0.01 * rng.random() for name in ("instance_auroc", "instance_ap", "pointing_game")
            }
        found.append({**row, "entropy_ratio": 0.5})
    return found


def slice_rows(lift, seed=0, count=40):
    """Return answers of one seed; scores of the slices of a lesion are higher by ``lift``."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        truth = np.zeros(30, dtype=int)
        truth[rng.integers(0, 26) :][:4] = 1
        scores = rng.standard_normal(30) + lift * truth
        rows.append({"label": i % 2, "scores": scores.tolist(), "instance_label": truth.tolist()})
    return {1: [row if row["label"] else {"label": 0} for row in rows], 2: rows[1::2]}
