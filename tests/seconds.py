"""Seconds that the tests of each folder took."""

from collections import defaultdict


def seconds_by_folder(reports):
    """Return seconds of all tests, seconds of slow tests and number of tests by folder, the longest first.

    Args:
        reports: reports of pytest; a test has up to three, for its fixtures and for itself. Others are left out.

    Example:
        >>> from types import SimpleNamespace
        >>> def report(nodeid, when, duration, *marks):
        ...     return SimpleNamespace(nodeid=nodeid, when=when, duration=duration, keywords=dict.fromkeys(marks, 1))
        >>> reports = [report("tests/data/scans/test_a.py::test_b", "call", 1.5)]
        >>> reports += [report("tests/apps/test_c.py::test_d[x/y]", when, 4.0, "slow") for when in ("setup", "call")]
        >>> reports += [report("README.md::README.md", "call", 0.5), SimpleNamespace(nodeid="a warning")]
        >>> seconds_by_folder(reports)
        {'tests/apps': (8.0, 8.0, 1), 'tests/data': (1.5, 0.0, 1), '.': (0.5, 0.0, 1)}
    """
    sums = defaultdict(lambda: (0.0, 0.0, 0))
    for report in reports:
        if not hasattr(report, "duration"):
            continue
        folder = "/".join(report.nodeid.split("::")[0].split("/")[:-1][:2]) or "."
        seconds, slow, count = sums[folder]
        slow += report.duration * ("slow" in report.keywords)
        sums[folder] = (seconds + report.duration, slow, count + (report.when == "call"))
    return dict(sorted(sums.items(), key=lambda entry: -entry[1][0]))
