"""Tests of cohorts from the layouts of three RSNA competitions, and of reports of invalid ones."""

import csv
import hashlib
import json

import pytest
import torch
from torch.nn import functional

from monai_mil_ext.data import load_cohort, read_bag
from tests.bundles import rsna_files as files


def prepare(kind, source, out):
    from scripts.rsna import prepare_rsna

    return prepare_rsna(kind, source, out)


def table(path):
    return list(csv.DictReader(path.open()))


def skipped(report):
    return {issue.location: issue.message for issue in report.skipped}


def append(path, *rows):
    with path.open("a", newline="") as file:
        csv.writer(file).writerows(rows)


def test_prepare_rsna_sorts_head_ct_by_position(tmp_path):
    files.head(tmp_path / "rsna", {"a": ("p", [0, 1, 1, 0]), "b": ("p", [0, 0, 0])})
    report = prepare("head", tmp_path / "rsna", tmp_path / "data")
    assert (report.num_rows, len(report.items), report.skipped) == (7 * 6, 2, [])
    assert table(tmp_path / "data" / "cohort.csv") == [
        {"bag": "ID_a", "patient": "ID_p", "label": "1", "num_slices": "4", "num_positive": "2"},
        {"bag": "ID_b", "patient": "ID_p", "label": "0", "num_slices": "3", "num_positive": "0"},
    ]
    slices = table(tmp_path / "data" / "slices" / "ID_a.csv")
    assert [s["file"] for s in slices] == [f"stage_2_train/ID_ak{k}.dcm" for k in (4, 3, 2, 1)]
    assert [float(s["place"]) for s in slices] == [-32.5, -27.5, -22.5, -17.5]
    assert [s["instance_label"] for s in slices] == ["0", "1", "1", "0"]


def test_prepare_rsna_sorts_chest_ct_by_instance_number(tmp_path):
    files.chest(tmp_path / "rsna", {"1.2": [0, 0, 1], "1.3": [0, 0]})
    prepare("chest", tmp_path / "rsna", tmp_path / "data")
    assert [(r["bag"], r["patient"], r["label"]) for r in table(tmp_path / "data" / "cohort.csv")] == [
        ("1.2bb", "1.2aa", "1"),
        ("1.3bb", "1.3aa", "0"),
    ]
    slices = table(tmp_path / "data" / "slices" / "1.2bb.csv")
    assert [s["file"].rpartition("/")[2] for s in slices] == ["1.203.dcm", "1.202.dcm", "1.201.dcm"]
    assert [s["instance_label"] for s in slices] == ["0", "0", "1"]


def test_prepare_rsna_sorts_abdominal_ct_by_file_number(tmp_path):
    files.abdomen(tmp_path / "rsna", {(7, 70): {2: 0, 10: 1, 9: 0}, (7, 71): {1: 0}, (8, 80): {5: 0, 6: 0}})
    prepare("abdomen", tmp_path / "rsna", tmp_path / "data")
    rows = table(tmp_path / "data" / "cohort.csv")
    assert [(r["bag"], r["patient"], r["label"]) for r in rows] == [
        ("7_70", "7", "1"),
        ("7_71", "7", "0"),  # the patient's injury is seen in another series
        ("8_80", "8", "0"),
    ]
    slices = table(tmp_path / "data" / "slices" / "7_70.csv")
    assert [s["file"].rpartition("/")[2] for s in slices] == ["2.dcm", "9.dcm", "10.dcm"]
    assert [s["instance_label"] for s in slices] == ["0", "0", "1"]


def test_prepare_rsna_reports_inconsistent_head_ct(tmp_path):
    root = tmp_path / "rsna"
    scans = {"a": ("p", [0, 1]), "b": ("q", [0, 0]), "c": ("r", [1, 1]), "d": ("s", [0, 1])}
    rows = files.head(root, scans)
    rows = [row for row in rows if not row[0].startswith("ID_bk1_")]  # an unlabeled slice
    rows += [["ID_lost_any", 1], ["ID_ak1_any", 1]]  # a row without a file, a row once more
    files.write_table(root / "stage_2_train.csv", ["ID", "Label"], rows)
    (root / "stage_2_train" / "ID_ck1.dcm").write_bytes(b"no DICOM")
    tags = {"SeriesInstanceUID": "ID_d", "ImagePositionPatient": [0, 0, 99.0]}
    files.write_dicom(root / "stage_2_train" / "ID_dk1.dcm", 1, PatientID="ID_other", **tags)
    report = prepare("head", root, tmp_path / "data")
    assert skipped(report) == {
        "ID_lost": "slice without a DICOM file",
        "ID_ck1": "slice whose DICOM file has no readable series, patient and position",
        "ID_b": "1 of its slices are not in the table",
        "ID_d": "it is of 2 patients",
    }
    assert [str(note) for note in report.notes] == [f"row {len(rows) + 1}: ID_ak1 once more, with the same label"]
    assert [item["case_id"] for item in report.items] == ["ID_a", "ID_c"]
    assert json.loads((tmp_path / "data" / "report.json").read_text())["skipped"][0]["location"] == "ID_lost"


def test_prepare_rsna_refuses_contradicting_labels(tmp_path):
    files.head(tmp_path / "rsna", {"a": ("p", [0, 1])})
    append(tmp_path / "rsna" / "stage_2_train.csv", ["ID_ak1_any", 0], ["ID_ak2_any", 2])
    with pytest.raises(ValueError, match="'ID_ak1' must have one label, got both 0 and 1") as error:
        prepare("head", tmp_path / "rsna", tmp_path / "data")
    assert "row 15: the label of 'ID_ak2' must be 0 or 1, got '2'" in str(error.value)
    assert not (tmp_path / "data" / "cohort.json").exists()
    assert len(json.loads((tmp_path / "data" / "report.json").read_text())["errors"]) == 2


def test_prepare_rsna_reports_inconsistent_chest_ct(tmp_path):
    root = tmp_path / "rsna"
    scans = {"1.1": [0, 1], "1.2": [0, 1], "1.3": [0, 1], "1.4": [1, 1], "1.5": [0]}
    files.chest(root, scans)
    (root / "train/1.2aa/1.2bb/1.201.dcm").unlink()
    files.write_dicom(root / "train/1.3aa/1.3bb/1.399.dcm", 1, InstanceNumber=9)
    files.write_dicom(root / "train/1.4aa/1.4bb/1.401.dcm", 1)  # without its number
    files.write_dicom(root / "train/1.9aa/1.9bb/1.901.dcm", 1, InstanceNumber=1)
    (root / "train/1.5aa/1.5bb/1.501.dcm").unlink()
    report = prepare("chest", root, tmp_path / "data")
    assert skipped(report) == {
        "1.2bb": "1 of its slices have no file, 0 of its files are not in the table",
        "1.3bb": "0 of its slices have no file, 1 of its files are not in the table",
        "1.4bb": "a DICOM file without a readable number",
        "1.5bb": "no DICOM file in its folder",
        "1.9bb": "a folder that is not in the table",
    }
    assert [item["case_id"] for item in report.items] == ["1.1bb"]


def test_prepare_rsna_reports_inconsistent_abdominal_ct(tmp_path):
    root = tmp_path / "rsna"
    files.abdomen(root, {(1, 10): {1: 1}, (2, 20): {1: 0}, (3, 30): {1: 0}, (4, 40): {1: 0}})
    append(root / "image_level_labels.csv", [2, 20, 99, "Bowel"], [5, 50, 1, "Bowel"])
    append(root / "train_series_meta.csv", [6, 60, 1.0, 0], [1, 10, 1.0, 0])
    files.write_table(root / "train.csv", ["patient_id"], [[p] for p in (1, 2, 4, 6)])
    files.write_dicom(root / "train_images/4/41/1.dcm", 1)
    report = prepare("abdomen", root, tmp_path / "data")
    assert skipped(report) == {
        "2_20": "1 labeled slices have no file",
        "3_30": "its patient is not in train.csv",
        "6_60": "no DICOM file in its folder",
        "5_50": "labels of slices of a series that is not in the table",
        "row 7": "series 10 of patient 1 once more",
        "41": "a folder that is not in the table",
    }
    assert [item["case_id"] for item in report.items] == ["1_10", "4_40"]


@pytest.mark.parametrize("kind", ["head", "chest", "abdomen"])
def test_prepare_rsna_names_a_missing_or_invalid_table(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=r"`source` must be a folder with '.*\.csv', got none there"):
        prepare(kind, tmp_path, tmp_path / "data")
    for name in ("stage_2_train.csv", "train.csv", "image_level_labels.csv", "train_series_meta.csv"):
        files.write_table(tmp_path / name, ["a", "b"], [[1, 2]])
    with pytest.raises(ValueError, match=r"\.csv must have the columns \[.*\], got \['a', 'b'\]"):
        prepare(kind, tmp_path, tmp_path / "data")


def test_prepare_rsna_refuses_names_out_of_the_folder(tmp_path):
    files.abdomen(tmp_path, {(1, 10): {1: 1}})
    append(tmp_path / "train_series_meta.csv", ["../..", 10, 1.0, 0])
    with pytest.raises(ValueError, match=r"`name` must be letters, digits.* got '../..'"):
        prepare("abdomen", tmp_path, tmp_path / "data")


def test_prepare_rsna_needs_a_scan(tmp_path):
    files.abdomen(tmp_path, {(1, 10): {1: 1}})
    (tmp_path / "train_images/1/10/1.dcm").unlink()
    with pytest.raises(ValueError, match="must have at least one usable bag"):
        prepare("abdomen", tmp_path, tmp_path / "data")


def load(folder, case="ID_a", **options):
    from scripts.slice_table import LoadSliceTabled

    return LoadSliceTabled("image", str(folder / "rsna"), **options)({"image": str(folder / f"data/slices/{case}.csv")})


@pytest.fixture
def one_head(tmp_path):
    """A scan of three slices, 4 x 6 pixels, stored 500, 501, 502 with a corner of 0."""
    files.head(tmp_path / "rsna", {"a": ("p", [0, 1, 1])})
    prepare("head", tmp_path / "rsna", tmp_path / "data")
    return tmp_path


def test_load_slice_tabled_are_in_hu_square_and_in_order(one_head):
    bag = load(one_head, spatial_size=6)
    values = bag["image"]
    assert values.shape == (3, 1, 6, 6)
    assert values[:, 0, 2, 2].tolist() == [500 * 2 - 1024, 501 * 2 - 1024, 502 * 2 - 1024]
    assert (values[:, 0, 0] == -1024).all()  # padded above and below with the scan's minimum
    assert (values[:, 0, 5] == -1024).all()
    assert values[0, 0, 1, 0] == -1024  # its own corner
    assert values[0, 0, 1, 1] == -24
    assert bag["instance_label"].tolist() == [0, 1, 1]
    assert bag["position"].tolist() == [-32.5, -27.5, -22.5]
    assert bag["slice_index"].tolist() == [0, 1, 2]


def test_load_slice_tabled_are_windowed_before_padding_and_resized(one_head):
    values = load(one_head, spatial_size=6, hu_window=[-100, -21])["image"]
    assert (values.min(), values.max()) == (-100, -21)
    assert (values[:, 0, 0] == -100).all()
    assert load(one_head)["image"].shape == (3, 1, 224, 224)
    with pytest.raises(ValueError, match="`hu_window` must be two numbers, the lower one first"):
        load(one_head, hu_window=[400])


def test_load_slice_tabled_name_a_damaged_slice_without_a_path(one_head):
    victim = one_head / "rsna/stage_2_train/ID_ak2.dcm"
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"`image` must have readable slices, got .* for slice 1") as error:
        load(one_head)
    assert str(one_head) not in str(error.value)
    files.write_dicom(victim, 1, shape=(5, 6))
    with pytest.raises(ValueError, match=r"`image` must have slices of one size, got \[\(4, 6\), \(5, 6\)\]"):
        load(one_head)


def test_load_slice_tabled_refuse_a_file_outside_of_the_source(one_head):
    files.write_table(one_head / "data/slices/x.csv", ["file", "place", "instance_label"], [["../../x.dcm", 0, 0]])
    with pytest.raises(ValueError, match=r"`file` must lie in the folder of the scans, got '../../x.dcm'"):
        load(one_head, "x")
    files.write_table(one_head / "data/slices/x.csv", ["file", "place"], [["x.dcm", 0]])
    with pytest.raises(ValueError, match="`image` must be a table with the columns"):
        load(one_head, "x")


def vit_by_hand(state, x):
    """The class token of images (N, 3, h, w), from the equations of the paper."""
    h = functional.conv2d(x, state["conv_proj.weight"], state["conv_proj.bias"], 4).flatten(2).mT
    h = torch.cat([state["class_token"].expand(len(x), -1, -1), h], 1) + state["encoder.pos_embedding"]
    width = h.shape[-1]

    def norm(h, name):
        return functional.layer_norm(h, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    for i in range(2):
        layer = f"encoder.layers.encoder_layer_{i}"
        attention = f"{layer}.self_attention"
        parts = norm(h, f"{layer}.ln_1") @ state[f"{attention}.in_proj_weight"].T + state[f"{attention}.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in parts.chunk(3, -1))
        mixed = ((q @ k.mT / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)
        h = h + mixed @ state[f"{attention}.out_proj.weight"].T + state[f"{attention}.out_proj.bias"]
        inner = norm(h, f"{layer}.ln_2") @ state[f"{layer}.mlp.0.weight"].T + state[f"{layer}.mlp.0.bias"]
        h = h + functional.gelu(inner) @ state[f"{layer}.mlp.3.weight"].T + state[f"{layer}.mlp.3.bias"]
    return norm(h, "encoder.ln")[:, 0]


@pytest.mark.parametrize("old", [False, True])
def test_vit_b16_features_equals_the_vision_transformer_on_three_channels(tmp_path, old):
    from scripts.vit_b16 import ViTB16Features

    torch.save(files.vit_state(old=old), tmp_path / "vit.pth")
    digest = hashlib.sha256((tmp_path / "vit.pth").read_bytes()).hexdigest()
    net = ViTB16Features(str(tmp_path / "vit.pth"), mean=5.0, std=2.0, sha256=digest[:8])
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = vit_by_hand(files.vit_state(), ((x - 5) / 2).expand(-1, 3, -1, -1))
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in net.parameters())
    with pytest.raises(ValueError, match=r"`weights` must be the file whose SHA-256 begins c867db91, got vit.pth of"):
        ViTB16Features(str(tmp_path / "vit.pth"), 0.0, 1.0)
    with pytest.raises(ValueError, match="`std` must be positive, got 0"):
        ViTB16Features(str(tmp_path / "vit.pth"), 0.0, 0)


def test_measure_intensity_is_that_of_the_training_scans(tmp_path):
    from scripts.rsna_intensity import measure_intensity, read_intensity

    scans = {f"s{i}": (f"p{i}", [i % 2] * 2) for i in range(24)}
    files.head(tmp_path / "rsna", scans)
    prepare("head", tmp_path / "rsna", tmp_path / "data")
    mean, std = measure_intensity(tmp_path / "rsna", tmp_path / "data", 1001, 4, [-100, 300])
    bag = load(tmp_path, "ID_s0", spatial_size=4, hu_window=[-100, 300])["image"].double()  # all scans are alike
    assert (mean, std) == pytest.approx((bag.mean().item(), bag.std(correction=0).item()))
    assert read_intensity(str(tmp_path / "data"), 1001, 4, [-100, 300]) == [mean, std]
    assert json.loads((tmp_path / "data/intensity_1001.json").read_text())["num_scans"] == 16
    with pytest.raises(
        ValueError, match=r"`intensity` must be measured on slices made with .*, got intensity_1001.json"
    ):
        read_intensity(str(tmp_path / "data"), 1001, 4, None)
    with pytest.raises(FileNotFoundError, match=r"`seed` must be one that scripts.rsna_intensity was run with, got 7"):
        read_intensity(str(tmp_path / "data"), 7, 4, None)


def test_rsna_config_trains_by_the_protocol_and_reads_features(start, tmp_path):
    """From the competition's files to a trained network, by the configs as they are shipped."""
    from scripts.rsna_intensity import measure_intensity

    files.head(tmp_path / "rsna", {f"s{i}": (f"p{i}", [0, i % 2, 0]) for i in range(24)})
    data = tmp_path / "data"
    prepare("head", tmp_path / "rsna", data)
    measure_intensity(tmp_path / "rsna", data, 1001, 8, [-100, 300])
    torch.save(files.vit_state(), data / "vit.pth")
    digest = hashlib.sha256((data / "vit.pth").read_bytes()).hexdigest()
    settings = {
        "dataset_dir": str(data), "source_dir": str(tmp_path / "rsna"), "ckpt_dir": str(tmp_path / "out"),
        "output_dir": str(tmp_path / "out"), "spatial_size": 8, "in_features": 128, "seed": 1001, "epochs": 2,
        "batch_size": 8, "encoder#weights": str(data / "vit.pth"), "encoder#sha256": digest,
    }  # fmt: skip
    workflow = start("train", "rsna", "rsna_head", "protocol", "published", **settings)
    workflow.run()
    assert (tmp_path / "out" / "epochs.json").exists()
    bags = workflow.parser.get_parsed_content("bags")
    folder = next((data / "features").iterdir())
    result = load_cohort(data / "cohort.csv", root=folder)
    assert [(f["case_id"], f["label"], f["num_instances"]) for f in result] == [
        (b["case_id"], b["label"], 3) for b in bags
    ]
    bag = read_bag(result[1]["image"], keys=["features", "instance_label"])
    assert bag["features"].shape == (3, 128)
    written = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert b"Secretname" not in written
    assert str(tmp_path).encode() not in written
