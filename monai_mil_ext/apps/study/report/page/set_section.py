"""Section of the report of a study on sets of instances with a guarantee."""

from __future__ import annotations

from collections.abc import Iterable

from .report_blocks import Block, page_table, text_block
from .report_facts import ReportFacts

__all__ = ["set_blocks"]

COLUMNS = {
    "method": "method",
    "guarantee": "guarantee",
    "num_cases": "positive cases",
    "num_calibration": "patients of a calibration",
    "coverage": "coverage",
    "set_size": "instances needed",
    "set_share": "share of the bag",
    "no_set": "share of cases without a set",
}


def set_blocks(facts: ReportFacts) -> Iterable[Block]:
    """Yield coverage and size of the sets of each method, where cases have labels of instances."""
    rows = [
        {"method": name, **row, "guarantee": f"{100 * row['confidence']:g} %"}
        for name, summary in facts.finished.items()
        for row in summary.get("sets") or ()
    ]
    if rows:
        yield page_table(rows, COLUMNS, "Sets that include a positive instance, with 95 % intervals", "undefined")
        yield text_block(
            "A set has the instances of highest attention. Its size comes from the test cases of the other folds "
            "(split conformal prediction), which have networks of their own. So the table estimates what a "
            "calibration gives, and calibrates no network. Cases that need more than half of their instances have no "
            "set."
        )
