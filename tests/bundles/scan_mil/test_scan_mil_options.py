"""Tests of options of the preprocessing: MR without Hounsfield units, pixels of one size, NaN, wrong windows."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from monai_mil_ext.data import ModelRecord
from monai_mil_ext.utils import InputError
from monai_mil_ext.utils.exceptions import root_cause

from .ct_series import OPTIONS, SIDE, train

SPACING = (2.0, 2.0, 2.5)


def brain(seed):
    """Return the array (X, Y, Z) of a body with a bright half, in the air of an MR of unit ``seed`` + 1."""
    array = np.zeros((2 * SIDE, 2 * SIDE, 6))
    body = np.random.default_rng(seed).uniform(300, 500, (SIDE, SIDE, 6))
    array[4:-4, 4:-4] = body + 400 * (np.arange(SIDE) > 3)[:, None, None]
    array[array == 0] = np.nan if seed == 3 else 0  # as a skull-stripped brain may have it
    return array * (seed + 1)


def write(file, array):
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([*SPACING, 1])), file)
    return str(file)


def items(folder):
    """Write MR and return their items."""
    cases = []
    for i, case in enumerate("abcd"):
        image = write(folder / f"{case}.nii.gz", brain(i))
        cases.append({"case_id": case, "patient": case, "image": image, "label": i % 2})
    return cases


@pytest.fixture(scope="module")
def mr(tmp_path_factory):
    """Folder of MR and of the model that mr.yaml trains on them, with pixels of 4 mm."""
    folder = tmp_path_factory.mktemp("mr")
    return train(folder, folder, "mr", scans=items(folder), pixel_mm=4)


@pytest.fixture
def infer(start, mr, tmp_path):
    """Infer a scan with inference.yaml alone, and return its prediction."""

    def run(scan="a.nii.gz", folder=mr, **options):
        paths = {"ckpt_dir": str(folder), "output_dir": str(tmp_path / "out"), "input": str(mr / scan)}
        start("inference", **paths, case_id="c", **{**OPTIONS, "pictures": [], **options}).run()
        return json.loads((tmp_path / "out" / "c" / "prediction.json").read_text())

    return run


def cause(run, *args, **options):
    with pytest.raises(Exception, match=r".") as error:
        run(*args, **options)
    return root_cause(error.value)


def test_training_on_mr_records_the_normalization(mr):
    source = ModelRecord.read(mr).sources[0]
    assert (source.normalization, source.window) == ("percentile(1, 99)", ())
    assert (source.pixel_mm, source.spatial_size, source.fill_nan) == ((4.0,), (SIDE,), "lowest")


@pytest.mark.parametrize("case", ["a", "d"])
def test_inference_alone_repeats_the_preprocessing_of_mr(infer, mr, tmp_path, case):
    result = infer(f"{case}.nii.gz")
    assert result["source_check"] == "agrees with the training"
    array = brain("abcd".index(case))
    write(mr / "other.nii.gz", 0.37 * array + 100)  # another scanner
    assert infer("other.nii.gz")["probability"] == pytest.approx(result["probability"], abs=1e-5)
    write(mr / "other.nii.gz", array[::-1] ** 2)
    assert infer("other.nii.gz")["probability"] != pytest.approx(result["probability"], abs=1e-5)


MISMATCHES = [
    ({"normalization": "zscore"}, r"^trained on normalization percentile\(1, 99\), got normalization zscore\(3\)$"),
    ({"normalization": None}, r"^trained on normalization percentile\(1, 99\), got window -1000 to 400$"),
    ({"pixel_mm": 2}, "^trained on pixels of 4 mm, got pixels of 2 mm$"),
    ({"pixel_mm": None}, "^trained on pixels of 4 mm, got pixels of their own size$"),
    ({"fill_nan": 0}, "^trained on NaN filled with lowest, got NaN filled with 0$"),
]


@pytest.mark.parametrize(("options", "match"), MISMATCHES)
def test_inference_refuses_another_preprocessing_than_that_of_mr(infer, options, match):
    error = cause(infer, **options)
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match=match):
        raise error


def test_a_window_of_ct_refuses_mr_and_names_the_option(infer, trained, tmp_path, mr):
    with pytest.raises(
        ValueError, match=r"'a': `image` must have Hounsfield units.* Consider `--normalization percentile`"
    ):
        raise cause(train, tmp_path, tmp_path, scans=items(mr)[:1])
    shutil.copy(mr / "model.pt", tmp_path)  # weights without a record
    error = cause(infer, folder=tmp_path, in_features=16)
    assert isinstance(error, InputError)
    assert error.option == "--normalization percentile"
    with pytest.raises(ValueError, match=r"^trained on values from -1024, got values from 0$"):
        raise cause(infer, folder=trained)


def test_a_record_without_values_of_scans_leaves_the_check_for_a_ct(infer, trained, scans, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    record = json.loads(file.read_text())
    for name in ("lowest", "highest", "modality"):
        del record["sources"][0][name]
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match="must have Hounsfield units"):
        raise cause(infer, folder=tmp_path / "model")
    assert cause(infer, scans / "mr", folder=tmp_path / "model").option == "--normalization percentile"
    assert infer(scans / "a", folder=tmp_path / "model")["source_check"] == "agrees with the training"


WRONG = [
    ({"hu_window": [400]}, r"^`hu_window` must be two numbers, the lower one first, got \[400\]\.$"),
    ({"spatial_size": [8, 8]}, "^`spatial_size` must be a positive integer"),
    ({"pixel_mm": 0}, "^`pixel_mm` must be positive and finite"),
    ({"fill_nan": "mean"}, "^`fill_nan` must be a finite number, 'lowest' or None"),
    ({"normalization": "minmax"}, "^`mode` must be 'percentile' or 'zscore'"),
    ({"hounsfield": "no"}, "^`hounsfield` must be true or false"),
]


@pytest.mark.parametrize(("options", "match"), WRONG)
def test_wrong_options_are_refused_before_a_scan_is_read(infer, tmp_path, options, match):
    absent = [{"case_id": "c", "patient": "c", "image": str(tmp_path / "absent.nii.gz"), "label": 1}]
    with pytest.raises(ValueError, match=match):
        raise cause(train, tmp_path, tmp_path, scans=absent, **options)
    (tmp_path / "model.pt").touch()  # weights are looked for before options are checked
    with pytest.raises(ValueError, match=match):
        raise cause(infer, "absent.nii.gz", folder=tmp_path, **options)
