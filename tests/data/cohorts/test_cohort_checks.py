"""Tests of the checks of the bag files of a cohort."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from monai_mil_ext.data import CohortChecks, check_cohort, load_cohort, write_bag
from monai_mil_ext.data.cohorts.cohort_checks import BagSummary
from tests.data import bag_files as make
from tests.data.cohort_files import HEAD, texts, write_bags, write_table


def test_cohort_checks_inspect_returns_sizes_or_an_error(tmp_path):
    write_bags(tmp_path, {"a": 2})
    (tmp_path / "b.h5").write_bytes(b"no bag")
    assert CohortChecks().inspect(tmp_path / "a.h5") == BagSummary(2, 3)
    assert "'b.h5'" in CohortChecks().inspect(tmp_path / "b.h5").error
    assert "'c.h5'" in CohortChecks().inspect(tmp_path / "c.h5").error
    np.save(tmp_path / "d.npy", np.full((1, 3), np.inf))
    assert CohortChecks(features=True).inspect(tmp_path / "d.npy").error == (
        "features must be finite, got 3 NaN or infinite values"
    )


def test_cohort_checks_check_widths_compares_with_most_bags():
    summaries = {Path(name): BagSummary(2, width) for name, width in {"a": 4, "b": 3, "c": 3}.items()}
    summaries[Path("empty")] = BagSummary(0, 0)
    checked = CohortChecks().check_widths(summaries)
    assert {path.name: summary.error for path, summary in checked.items()} == {
        "a": "features must have 3 columns as in 2 bags, got 4",
        "b": "",
        "c": "",
        "empty": "",
    }
    assert CohortChecks().check_widths({Path("empty"): BagSummary()}) == {Path("empty"): BagSummary()}


def test_cohort_checks_of_features_and_coordinates(tmp_path):
    write_bags(tmp_path, {"good": 3})
    write_bag(tmp_path / "nan.h5", {"features": np.array([[1, np.nan, np.inf]], np.float16)})
    coords = np.array([[0, 0], [0, 1], [0, 0], [0, 0]])
    write_bag(tmp_path / "doubled.h5", {"features": np.ones((4, 3), np.float32), "coords": coords})
    table = write_table(tmp_path / "c.csv", [HEAD, *([name, "p", "0"] for name in ("good", "nan", "doubled"))])
    assert len(load_cohort(table)) == 3
    errors = texts(check_cohort(table, checks=CohortChecks(features=True, coords=True)).errors)
    assert errors == [
        "row 3, 'nan': features must be finite, got 2 NaN or infinite values",
        "row 4, 'doubled': instances must have distinct coordinates, got 2 duplicates",
    ]
    checks = CohortChecks(features=True, coords=True)
    assert [item["case_id"] for item in load_cohort(table, checks=checks, on_bad="skip")] == ["good"]


def test_cohort_checks_in_features(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["b", "p", "0"]])
    report = check_cohort(table, checks=CohortChecks(in_features=4))
    assert texts(report.errors)[0] == "row 2, 'a': features must have 4 columns, got 3"
    assert len(report.errors) == 2


def test_cohort_checks_check_widths_takes_no_side_of_a_tie():
    summaries = {Path(name): BagSummary(2, width) for name, width in {"a": 4, "b": 3, "c": 3, "d": 4}.items()}
    checked = CohortChecks().check_widths(summaries)
    assert checked[Path("a")].error == "features must have one width, and 3 and 4 are as frequent, got 4"
    assert all(summary.error for summary in checked.values())


@pytest.mark.parametrize("key", ["features", "coords", "position"])
def test_cohort_checks_features_refuses_values_that_are_not_finite(tmp_path, key):
    arrays = {"features": np.ones((3, 2)), "coords": np.arange(6.0).reshape(3, 2), "position": np.arange(3.0)}
    arrays[key][1] = np.inf
    write_bag(tmp_path / "a.h5", arrays)
    count = arrays[key][1].size
    expected = f"{key} must be finite, got {count} NaN or infinite values"
    assert CohortChecks(features=True).inspect(tmp_path / "a.h5").error == expected
    assert CohortChecks().inspect(tmp_path / "a.h5").error == ""


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (make.trident, {"encoder": "uni_v1", "magnification": 20, "tile_size": "256 px"}),
        (make.stamp, {"encoder": "ctranspath", "mpp": 256 / 224, "tile_size": "224 px"}),
        (make.wsidata, {"encoder": "resnet50", "mpp": 1.0}),
        (make.clam, {}),
        (lambda path: write_bag(path, {"features": np.ones((2, 3))}, {"unit": "px", "tile_size": 512}),
         {"tile_size": "512 px of level 0"}),
    ],
    ids=["trident", "stamp", "wsidata", "clam", "own"],
)  # fmt: skip
def test_cohort_checks_inspect_reads_encoder_and_resolution(tmp_path, write, expected):
    path = tmp_path / ("a.zarr" if write is make.wsidata else "a.h5")
    write(path)
    summary = CohortChecks().inspect(path)._asdict()
    stated = {key: summary[key] for key in ("encoder", "mpp", "magnification", "tile_size") if summary[key]}
    assert stated == expected


def trident(path, encoder, magnification=20, patch_size=256):
    """Write a file in the layout of TRIDENT; encoder None states none."""
    make.trident(path, encoder=encoder or "none")
    with h5py.File(path, "r+") as file:
        file["coords"].attrs.update({"target_magnification": magnification, "patch_size": patch_size})
    return path


def write_cohort(folder, *groups):
    """Write bags by groups (count, label, options of ``trident``), and their table."""
    rows = [HEAD]
    for i, (count, label, options) in enumerate(groups):
        for k in range(count):
            trident(folder / f"s{i}_{k}.h5", **options)
            rows.append([f"s{i}_{k}", f"p{i}_{k}", label])
    return write_table(folder / "c.csv", rows)


def test_check_cohort_refuses_encoders_that_are_confounded_with_the_label(tmp_path):
    table = write_cohort(tmp_path, (4, "0", {"encoder": "uni_v1"}), (4, "1", {"encoder": "gigapath"}))
    report = check_cohort(table)
    expected = [
        "encoder: encoder must be the same in all files, got 'uni_v1' in 4, 'gigapath' in 4",
        "encoder: encoder and label are confounded: class 0 is all uni_v1, class 1 all gigapath; "
        "a network can separate encoders instead of disease",
    ]
    assert texts(report.errors) == expected
    assert report.notes == []
    for on_bad in ("refuse", "skip"):
        with pytest.raises(ValueError, match="encoder must be the same in all files"):
            load_cohort(table, on_bad=on_bad)
    allowed = check_cohort(table, checks=CohortChecks(allow_mismatch=True))
    assert (allowed.errors, len(allowed.items)) == ([], 8)
    assert texts(allowed.notes)[1] == expected[1]
    assert texts(allowed.notes)[0].startswith("encoder: encoder is not the same in all files")


def test_check_cohort_of_a_requested_encoder_leaves_out_the_others(tmp_path):
    groups = [(3, "0", {"encoder": "uni_v1"}), (3, "1", {"encoder": "uni_v1"}), (1, "1", {"encoder": "gigapath"})]
    table = write_cohort(tmp_path, *groups, (1, "0", {"encoder": None}))
    checks = CohortChecks(encoder="uni_v1")
    report = check_cohort(table, checks=checks)
    assert texts(report.errors) == ["row 8, 's2_0': features must be of the encoder 'uni_v1', got 'gigapath'"]
    assert texts(report.notes) == ["encoder: 1 of 7 files does not state the encoder: not checked"]
    assert len(load_cohort(table, checks=checks, on_bad="skip")) == 7


def test_check_cohort_notes_resolutions_and_tile_sizes(tmp_path, caplog):
    low, high = {"encoder": "a", "magnification": 5}, {"encoder": "a", "magnification": 20, "patch_size": 512}
    table = write_cohort(tmp_path, (4, "0", low), (4, "1", high))
    report = check_cohort(table)
    assert report.errors == []
    assert texts(report.notes) == [
        "resolution: resolution is not the same in all files: '5x' in 4, '20x' in 4",
        "resolution: resolution and label are confounded: class 0 is all 5x, class 1 all 20x; "
        "a network can separate resolutions instead of disease",
        "tile size: tile size is not the same in all files: '256 px' in 4, '512 px' in 4",
        "tile size: tile size and label are confounded: class 0 is all 256 px, class 1 all 512 px; "
        "a network can separate tile sizes instead of disease",
    ]
    assert len(load_cohort(table)) == 8
    assert "c.csv: " + texts(report.notes)[1] in caplog.messages


def test_check_cohort_compares_magnification_with_mpp(tmp_path):
    trident(tmp_path / "a.h5", "uni")
    for name, mpp in (("b", 0.48), ("c", 0.25)):
        write_bag(tmp_path / f"{name}.h5", {"features": np.ones((2, make.F))}, {"encoder": "uni", "mpp": mpp})
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["b", "q", "0"]])
    assert check_cohort(table).errors == []
    assert "resolution" not in str(check_cohort(table))
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["c", "q", "0"]])
    assert "resolution is not the same in all files: '20x' in 1, '0.25 mpp' in 1" in str(check_cohort(table))


def test_check_cohort_notes_features_of_several_configurations(tmp_path):
    """Two windows of one encoder have two fingerprints."""
    rows = [HEAD]
    for i in range(6):
        folder, options = tmp_path / str(i // 3), {"fingerprint": str(i // 3) * 64, "encoder": "net"}
        write_bag(folder / f"s{i}.h5", {"features": np.ones((2, 3))}, options)
        rows.append([f"s{i}", f"p{i}", str(i // 3)])
    report = check_cohort(write_table(tmp_path / "c.csv", rows))
    assert report.errors == []
    assert texts(report.notes) == [
        "configuration: configuration is not the same in all files: '000000000000' in 3, '111111111111' in 3",
        "configuration: configuration and label are confounded: class 0 is all 000000000000, class 1 all 111111111111; "
        "a network can separate configurations instead of disease",
    ]


@pytest.mark.parametrize("value", ["256", np.array([256.0, 256.0]), np.zeros((0,))])
def test_cohort_checks_ignore_a_patch_size_that_is_no_number(tmp_path, value):
    write_bag(tmp_path / "a.h5", {"features": np.ones((2, 3))}, {"patch_size": value, "fingerprint": 3})
    assert CohortChecks().inspect(tmp_path / "a.h5") == BagSummary(2, 3)


def test_check_cohort_refuses_features_of_slides_beside_those_of_tiles(tmp_path):
    make.trident(tmp_path / "a.h5", encoder="titan")
    make.trident(tmp_path / "b.h5", features=np.ones(make.F, np.float32), coords=make.GRID[:1], encoder="titan")
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["b", "q", "0"]])
    assert texts(check_cohort(table).errors) == [
        "level: level must be the same in all files, got 'tile' in 1, 'slide' in 1"
    ]
