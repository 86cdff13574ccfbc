"""Tests of the tables of the pages, which are made from docs/results."""


def test_benchmark_table_marks_missed_goals():
    from experiments.tables import benchmark_table

    common = {
        "stretch": None,
        "minima": None,
        "bound": 4.0,
        "threads": 2,
        "detail": {"ours_kib": 1.5, "ours_seconds": 3},
    }
    rows = [
        {"name": "a", "what": "first", "goal": 2.0, "at_most": False, "value": 1.9} | common,
        {"name": "b", "what": "second", "goal": 2.0, "at_most": True, "value": 1.9} | common | {"stretch": 1.5},
    ]
    result = {"kind": "benchmark", "machine": "M", "versions": {"torch": "2"}, "note": "N", "rows": rows}
    table = benchmark_table(result)
    assert "| first; ours 1.5 KiB | >= 2 | **1.90, missed** | - | 4.00 |" in table
    assert "| second; ours 1.5 KiB | <= 2 (1.5) | 1.90 | - | 4.00 |" in table
    assert "On M, 2 threads; torch 2." in table


def test_patient_table_has_a_row_for_every_patient():
    from experiments.tables import patient_table

    patients = {"p1": {"bag_auroc": 0.5, "instance_auroc": 0.75}, "p2": {"bag_auroc": 1.0, "instance_auroc": None}}
    values = {"bag_auroc": 0.75, "instance_auroc": 0.75}
    rows = [{"name": "ABMIL", "values": values, "patients": patients}, {"name": "x", "values": {"bag_auroc": 1.0}}]
    lines = patient_table({"rows": rows, "by_patient": "A note."}).splitlines()
    assert lines[0] == "| patient | ABMIL: bag AUROC | ABMIL: slice AUROC |"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| p1", "| p2"]
    assert lines[-1] == "A note."
