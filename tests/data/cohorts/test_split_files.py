"""Tests of published splits."""

import json
import logging

import pytest

from monai_mil_ext.data import load_splits, split_cohort

ITEMS = [{"case_id": f"s.{i}", "patient": f"p{i // 2}", "image": f"bags/s.{i}.h5", "label": i % 2} for i in range(8)]
# as CLAM writes it, with an index and columns of different length
CLAM = ",train,val,test\n0,s.0,s.4,s.6\n1,s.1,s.5,s.7\n2,s.2,,\n3,s.3,,\n"
FOLD = {"train": ["s.0", "s.1", "s.2", "s.3"], "val": ["s.4", "s.5"], "test": ["s.6", "s.7"]}


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_load_splits_reads_a_table_of_clam(tmp_path):
    splits = load_splits(write(tmp_path / "splits_3.csv", CLAM), ITEMS)
    assert list(splits.folds) == [FOLD]
    assert [item["case_id"] for item in splits.select(ITEMS, 0, "val")] == ["s.4", "s.5"]


def test_load_splits_reads_the_folds_of_a_folder_in_their_order(tmp_path):
    for i in range(11):
        rotated = CLAM.replace("s.6", "x").replace("s.4", "s.6").replace("x", "s.4") if i == 10 else CLAM
        rotated = rotated.replace("s.7", "x").replace("s.5", "s.7").replace("x", "s.5") if i == 10 else rotated
        write(tmp_path / "task" / f"splits_{i}.csv", rotated)
        write(tmp_path / "task" / f"splits_{i}_bool.csv", ",train,val,test\ns.0,True,False,False\n")
    splits = load_splits(tmp_path / "task", ITEMS)
    assert len(splits) == 11
    assert [list(fold["test"]) for fold in splits.folds[9:]] == [["s.6", "s.7"], ["s.4", "s.5"]]
    (tmp_path / "task" / "splits_4.csv").unlink()
    with pytest.raises(ValueError, match=r"must have splits of all folds from 0, got those of \[0, 1, 2, 3, 5, "):
        load_splits(tmp_path / "task", ITEMS)
    with pytest.raises(FileNotFoundError, match=r"must be a folder with splits_0\.csv"):
        load_splits(write(tmp_path / "none" / "a.txt", "a").parent, ITEMS)


def test_load_splits_reads_its_own_json(tmp_path):
    splits = split_cohort(ITEMS, 2, 0, stratify=None)
    splits.write(tmp_path / "splits.json")
    assert load_splits(tmp_path / "splits.json", ITEMS) == splits


def test_load_splits_takes_names_of_files_and_numbers_of_data_frames(tmp_path):
    items = [{"case_id": str(i), "patient": str(i), "image": f"{i}.pt"} for i in range(3)]
    splits = load_splits(write(tmp_path / "s.csv", "train,val,test\n0.svs,1.0,2.0\n"), items)
    assert splits.folds == [{"train": ["0"], "val": ["1"], "test": ["2"]}]


def test_load_splits_counts_the_slides_of_a_patient_once(tmp_path):
    items = [
        {"case_id": f"p{i}", "patient": f"p{i}", "image": [f"bags/s.{2 * i}.h5", f"bags/s.{2 * i + 1}.h5"]}
        for i in range(4)
    ]
    splits = load_splits(write(tmp_path / "s.csv", CLAM), items)
    assert splits.folds == [{"train": ["p0", "p1"], "val": ["p2"], "test": ["p3"]}]


def test_load_splits_without_validation(tmp_path):
    splits = load_splits(write(tmp_path / "s.csv", "train,test\ns.0,s.2\ns.1,s.3\n"), ITEMS[:4])
    assert splits.folds == [{"train": ["s.0", "s.1"], "val": [], "test": ["s.2", "s.3"]}]


def test_load_splits_refuses_or_leaves_out_what_is_on_one_side_only(tmp_path, caplog):
    table = write(tmp_path / "s.csv", CLAM)
    with pytest.raises(
        ValueError, match=r"got 's\.csv': 2 slides of the table are not in the cohort: 's\.6', 's\.7'\."
    ):
        load_splits(table, ITEMS[:6])
    more = [*ITEMS, {"case_id": "new", "patient": "new", "image": "new.h5"}]
    with pytest.raises(ValueError, match=r"1 cases of the cohort are in no part: 'new'\. --on_bad skip goes on"):
        load_splits(table, more)
    caplog.set_level(logging.WARNING)
    splits = load_splits(table, more[2:], on_bad="skip")
    assert splits.folds[0]["train"] == ["s.2", "s.3"]
    assert [item["case_id"] for part in ("train", "val", "test") for item in splits.select(more[2:], 0, part)] == [
        f"s.{i}" for i in range(2, 8)
    ]
    assert "2 slides of the table are not in the cohort" in caplog.text
    assert "1 cases of the cohort are in no part" in caplog.text


def test_load_splits_refuses_leaks_and_other_tables(tmp_path):
    with pytest.raises(ValueError, match=r"patient 'p0' in train \['s.0'\] and test \['s.1'\]"):
        load_splits(write(tmp_path / "a.csv", "train,test\ns.0,s.1\n"), ITEMS[:2])
    with pytest.raises(ValueError, match=r"must name slides, got true and false: give 'splits_0\.csv'"):
        load_splits(write(tmp_path / "splits_0_bool.csv", ",train,val,test\ns.0,True,False,False\n"), ITEMS)
    with pytest.raises(ValueError, match="must have the columns 'train', 'val' and 'test', or 'split'"):
        load_splits(write(tmp_path / "c.csv", "slide,part\ns.0,train\n"), ITEMS)
    with pytest.raises(ValueError, match="`on_bad` must be one of 'refuse', 'skip', got 'drop'"):
        load_splits(tmp_path / "c.csv", ITEMS, on_bad="drop")


PARTS = {case: part for part, cases in FOLD.items() for case in cases}


def test_load_splits_reads_a_table_of_torchmil(tmp_path):
    lines = ["bag_name,split", *(f"{case},{part}" for case, part in PARTS.items())]
    assert load_splits(write(tmp_path / "splits.csv", "\n".join(lines)), ITEMS).folds == [FOLD]
    without = "\n".join(lines).replace(",val", ",train")
    assert load_splits(write(tmp_path / "splits.csv", without), ITEMS).folds[0]["val"] == []
    with pytest.raises(ValueError, match=r"must have train, val or test in the column 'split', got .* rows \[2\]"):
        load_splits(write(tmp_path / "splits.csv", "bag_name,split\ns.0,fold 1\n"), ITEMS)
    with pytest.raises(ValueError, match=r"must have a column of slides such as 'slide_id', got \['name', 'split'\]"):
        load_splits(write(tmp_path / "splits.csv", "name,split\ns.0,train\n"), ITEMS)


def test_load_splits_reads_files_of_acmil(tmp_path):
    names = {f"{part}_names": cases for part, cases in FOLD.items()}
    path = write(tmp_path / "split_1.json", json.dumps(names))
    assert load_splits(path, ITEMS).folds == [FOLD]
    other = {**names, "train_names": FOLD["val"] + FOLD["train"][:2], "val_names": FOLD["train"][2:]}
    write(tmp_path / "split_2.json", json.dumps(other))
    assert [fold["val"] for fold in load_splits(tmp_path, ITEMS).folds] == [FOLD["val"], ["s.2", "s.3"]]
    lines = ["slide_id,label,split_info", *(f"{case},0,{part}" for case, part in PARTS.items())]
    assert load_splits(write(tmp_path / "bracs.csv", "\n".join(lines)), ITEMS).folds == [FOLD]


def test_load_splits_reads_a_table_of_patho_bench(tmp_path):
    lines = ["case_id\tslide_id\tgrade\tfold_0\tfold_10\tfold_1"]
    for i in range(8):
        parts = ["test" if i // 2 == fold else "train" for fold in range(3)]
        lines.append(f"p{i // 2}\ts.{i}.svs\t1\t{parts[0]}\t{parts[2]}\t{parts[1]}")
    path = write(tmp_path / "k=all.tsv", "\n".join(lines))
    splits = load_splits(path, ITEMS)
    assert [fold["test"] for fold in splits.folds] == [["s.0", "s.1"], ["s.2", "s.3"], ["s.4", "s.5"]]
    patients = [{"case_id": f"p{i}", "patient": f"p{i}", "image": [f"x{i}.h5", f"y{i}.h5"]} for i in range(4)]
    assert [fold["test"] for fold in load_splits(path, patients).folds] == [["p0"], ["p1"], ["p2"]]


def test_load_splits_takes_patients_for_all_of_their_slides(tmp_path):
    lines = ["patient,split", "p0,train", "p1,train", "p2,val", "p3,test"]
    assert load_splits(write(tmp_path / "s.csv", "\n".join(lines)), ITEMS).folds == [FOLD]
    lines[2] = "p1,"
    with pytest.raises(ValueError, match=r"2 cases of the cohort are in no part: 's.2', 's.3'"):
        load_splits(write(tmp_path / "s.csv", "\n".join(lines)), ITEMS)
