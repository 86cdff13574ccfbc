"""Tests of the tables of the pages, which are made from docs/results."""


def test_patient_table_has_a_row_for_every_patient():
    from experiments.tables import patient_table

    patients = {"p1": {"bag_auroc": 0.5, "instance_auroc": 0.75}, "p2": {"bag_auroc": 1.0, "instance_auroc": None}}
    values = {"bag_auroc": 0.75, "instance_auroc": 0.75}
    rows = [{"name": "ABMIL", "values": values, "patients": patients}, {"name": "x", "values": {"bag_auroc": 1.0}}]
    lines = patient_table({"rows": rows, "by_patient": "A note."}).splitlines()
    assert lines[0] == "| patient | ABMIL: bag AUROC | ABMIL: slice AUROC |"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| p1", "| p2"]
    assert lines[-1] == "A note."
