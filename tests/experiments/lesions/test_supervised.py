"""Tests of the slice-supervised reference."""


def test_the_reference_learns_slices_from_their_labels(small, encoded):
    from experiments.lesions.features import scan_items
    from experiments.lesions.supervised import train_slice_supervised
    from experiments.lesions.training import TASK

    from monai_mil_ext.apps.study import TrainingSettings, parse_methods

    scans = small.cohort("many", 1)
    train, val = (scan_items([s for s in scans if s.split == part], encoded) for part in ("train", "val"))
    (method,) = parse_methods("InstanceConvMIL")
    training = TrainingSettings(epochs=20, learning_rate=0.01, batch_size=8)
    network, record = train_slice_supervised(method, train, val, TASK, training)
    again = train_slice_supervised(method, train, val, TASK, training)[1]
    assert record["val_instance_auroc"] > 0.9
    assert again == record
    assert not network.training
