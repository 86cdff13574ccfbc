"""Tests of the public feature sets, on a local server that answers as the hub does."""

import csv
import io
import json
import shutil
import tarfile

import h5py
import numpy as np
import pytest

from monai_mil_ext.data import load_cohort, read_bag
from tests.experiments.hub_server import COMMIT, Hub, aem_file, make_archive, serve, torchmil_files

NAMES = [f"patient_{20 * center + i:03d}_node_{i % 5}" for center in range(5) for i in range(6)]


@pytest.fixture(scope="module")
def files():
    """Return the files of a small set of head CTs."""
    return torchmil_files("resnet18")


@pytest.fixture
def scans(files):
    """Serve the small set of head CTs."""
    with serve(Hub("torchmil/RSNA_ICH_MIL", files)) as hub:
        yield hub


def words(hub, folder, *more, name="rsna_ich", encoder="resnet18"):
    place = ["--folder", str(folder), "--data", str(folder / "data"), "--result", str(folder / "result.json")]
    return [name, "--encoder", encoder, *place, "--endpoint", hub.address if hub else "http://127.0.0.1:9", *more]


def obtain(hub, folder, *more, **options):
    """Fetch and unpack, and return the table."""
    from experiments.public_sets.cohort import write_cohort
    from experiments.public_sets.hub import read_plan
    from experiments.public_sets.protocol import obtain, parse
    from experiments.public_sets.sets import SETS

    args = parse(words(hub, folder, *more, **options))
    plan = read_plan(SETS[args.name], args.encoder, args.data, args.revision, args.endpoint)
    obtain(SETS[args.name], plan, args)
    return write_cohort(SETS[args.name], args.encoder, args.data)


def read(table):
    with table.open() as file:
        return list(csv.DictReader(file))


def test_a_set_of_torchmil_becomes_one_table_with_instance_labels(scans, tmp_path):
    table, notes = obtain(scans, tmp_path)
    rows = read(table)
    assert len(rows) == 40
    assert rows[1] == {
        "case_id": "bag_01", "patient": "bag_01", "label": "1", "site": "", "split": "test",
        "image": "features/features_resnet18/bag_01.npy", "instance_label": "slice_labels/bag_01.npy",
    }  # fmt: skip
    assert any("repeated rows are not used" in note for note in notes)
    assert json.loads((tmp_path / "data" / "source.json").read_text())["revision"] == COMMIT
    assert not list((tmp_path / "data" / ".hub").rglob("*.*"))  # archives are removed once they are unpacked
    count = len(scans.requests)
    obtain(scans, tmp_path)
    assert [request for request in scans.requests[count:] if "resolve" in request[1] or "storage" in request[1]] == []


def test_a_set_with_patch_labels_in_a_deeper_folder(tmp_path):
    with serve(Hub("torchmil/Camelyon16_MIL", torchmil_files("UNI", "patch_labels", "dataset/patches_512/"))) as hub:
        table, _ = obtain(hub, tmp_path, name="camelyon16", encoder="UNI")
    assert read(table)[0]["instance_label"] == "patch_labels/bag_00.npy"


def test_bags_without_features_are_left_out_as_torchmil_does(files, tmp_path):
    few = {**files, "dataset/splits.csv": files["dataset/splits.csv"] + b"\nbag_99,train"}
    with serve(Hub("torchmil/RSNA_ICH_MIL", few)) as hub:
        table, notes = obtain(hub, tmp_path)
    assert len(read(table)) == 40
    assert "1 bags of splits.csv have no features, and are left out" in notes


def test_an_interrupted_download_goes_on_where_it_stopped(scans, tmp_path, monkeypatch):
    import huggingface_hub.file_download as download

    monkeypatch.setattr(download.constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what is kept of a line that breaks
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    path = "dataset/features/features_resnet18.tar.gz"
    scans.cut[path] = 1000
    obtain(scans, tmp_path)
    ranges = [got for _, name, got in scans.requests if name == f"/storage/{path}"]
    assert ranges == ["", "bytes=1000-"]


def test_a_download_that_was_killed_is_continued_by_the_next_call(scans, tmp_path, monkeypatch):
    import huggingface_hub.file_download as download

    path = "dataset/features/features_resnet18.tar.gz"
    scans.cut[path] = 1000
    monkeypatch.setattr(download.constants, "DOWNLOAD_CHUNK_SIZE", 500)
    with monkeypatch.context() as patch:

        def killed(*args):
            raise KeyboardInterrupt

        patch.setattr(download.time, "sleep", killed)
        with pytest.raises(KeyboardInterrupt):
            obtain(scans, tmp_path)
    obtain(scans, tmp_path)
    ranges = [got for _, name, got in scans.requests if name == f"/storage/{path}"]
    assert ranges == ["", "bytes=1000-"]


@pytest.mark.parametrize("path", ["dataset/labels.tar.gz", "dataset/splits.csv"])
def test_a_file_with_another_hash_is_refused_and_removed(scans, tmp_path, path):
    content = scans.files[path]
    scans.files[path] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(RuntimeError, match=rf"{path} must have the hash \w{{12}} that the hub states, got .* removed"):
        obtain(scans, tmp_path)
    assert not list((tmp_path / "data" / ".hub").rglob(path.rpartition("/")[2]))
    scans.files[path] = content
    obtain(scans, tmp_path)


def test_a_truncated_archive_is_refused_with_a_sentence(files, tmp_path):
    path = "dataset/labels.tar.gz"
    cut = Hub("torchmil/RSNA_ICH_MIL", {**files, path: files[path][:-40]})
    match = r"`archive` must be an undamaged .tar.gz, got 'labels.tar.gz'"
    with serve(cut) as hub, pytest.raises(ValueError, match=match):
        obtain(hub, tmp_path)
    assert not (tmp_path / "data" / "labels").exists()


def test_a_file_that_is_shorter_than_stated_is_refused(scans, tmp_path):
    path = "dataset/labels.tar.gz"
    scans.files[path] = scans.files[path][:-40]
    with pytest.raises(RuntimeError, match="arrived with another size than the hub states: start again"):
        obtain(scans, tmp_path)
    assert not (tmp_path / "data" / "labels").exists()


def test_without_internet_there_is_one_sentence_and_a_dry_run_tells_what_it_knows(tmp_path, capsys):
    from experiments.public_sets.protocol import main

    with pytest.raises(SystemExit) as end:
        main(words(None, tmp_path))
    text = str(end.value.code)
    assert text.startswith("rsna_ich: the hub can't be reached (")
    assert "\n" not in text
    main(words(None, tmp_path, "--dry_run", encoder="resnet50"))
    out = capsys.readouterr().out
    assert "0.33 GB  features_resnet50.tar.gz" in out
    assert "the hub can't be reached" in out
    assert not (tmp_path / "data").exists()


def test_a_dry_run_tells_sizes_revision_and_license_and_fetches_nothing(scans, tmp_path, capsys):
    from experiments.public_sets.protocol import main

    scans.license = "cc-by-nc-4.0"
    main(words(scans, tmp_path, "--dry_run"))
    out = capsys.readouterr().out
    size = len(scans.files["dataset/features/features_resnet18.tar.gz"])
    assert f"{size / 1e6:.2f} MB  dataset/features/features_resnet18.tar.gz" in out
    assert f"revision: {COMMIT}" in out
    assert "license: cc-by-nc-4.0, which was apache-2.0 when this was written" in out
    assert not (tmp_path / "data").exists()
    assert all("resolve" not in path for _, path, _ in scans.requests)


def test_the_revision_is_that_of_the_files_here(scans, tmp_path):
    obtain(scans, tmp_path)
    assert f"/api/datasets/{scans.repo}/revision/{COMMIT}" not in [path for _, path, _ in scans.requests]
    obtain(scans, tmp_path)
    assert f"/api/datasets/{scans.repo}/revision/{COMMIT}" in [path for _, path, _ in scans.requests]
    with pytest.raises(RuntimeError, match="`revision` must be one of torchmil/RSNA_ICH_MIL, got 'abc'"):
        obtain(scans, tmp_path, "--revision", "abc")
    (tmp_path / "data" / "source.json").write_text('{"revision": "main"}')
    with pytest.raises(ValueError, match=rf"`revision` must be main, that of the files in the folder, got {COMMIT}"):
        obtain(scans, tmp_path)


def test_a_set_that_is_not_there_or_has_other_files_is_named(tmp_path, files):
    from experiments.public_sets.hub import read_plan
    from experiments.public_sets.sets import SETS

    match = "the hub has no data set torchmil/RSNA_ICH_MIL"
    with serve(Hub("other/set", files)) as hub, pytest.raises(RuntimeError, match=match):
        read_plan(SETS["rsna_ich"], "resnet18", tmp_path, endpoint=hub.address)
    match = r"must have one file 'features_resnet50.tar.gz', got \[\]"
    with serve(Hub("torchmil/RSNA_ICH_MIL", files)) as hub, pytest.raises(RuntimeError, match=match):
        read_plan(SETS["rsna_ich"], "resnet50", tmp_path, endpoint=hub.address)


def test_a_large_download_needs_a_yes(scans, tmp_path, monkeypatch):
    from experiments.public_sets import protocol

    monkeypatch.setattr(protocol, "LARGE", 100)
    with pytest.raises(RuntimeError, match="the download is large: give --yes"):
        obtain(scans, tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    with pytest.raises(RuntimeError, match="nothing was fetched"):
        obtain(scans, tmp_path)
    assert len(read(obtain(scans, tmp_path, "--yes")[0])) == 40


def test_a_full_disk_is_named_before_anything_is_fetched(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
    with pytest.raises(OSError, match=r"the disk must have 0.27 GB free, got 1.00 MB: give another --data"):
        obtain(scans, tmp_path)
    assert all("resolve" not in path for _, path, _ in scans.requests)


KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)


def archive(folder, *members):
    """Write an archive of (name, content or kind)."""
    with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content not in KINDS:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, "/etc/passwd"
                tar.addfile(member)
    return folder / "a.tar.gz"


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (("../x.npy", b"one"), r"plain files inside it only, got '\.\./x\.npy' in 'a\.tar\.gz'"),
        (("/tmp/x.npy", b"one"), "plain files inside it only"),  # noqa: S108
        (("x.npy", tarfile.SYMTYPE), "plain files inside it only"),
        (("x.npy", tarfile.LNKTYPE), "plain files inside it only"),
        (("x.npy", tarfile.FIFOTYPE), "plain files inside it only"),
        (("x.sh", b"one"), r"files with \.npy only, got 'x\.sh'"),
        (("b/good.npy", b"one"), r"each file once, got 'good\.npy' twice"),
    ],
)
def test_archives_with_anything_but_plain_files_are_refused(tmp_path, member, match):
    from experiments.public_sets.archives import unpack

    with pytest.raises(ValueError, match=match):
        unpack(archive(tmp_path, ("a/good.npy", b"one"), member), tmp_path / "in" / "target")
    assert not (tmp_path / "in" / "target").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "in"]


def test_unpacking_goes_on_and_leaves_hidden_files_out(tmp_path):
    from experiments.public_sets.archives import unpack

    source = archive(tmp_path, ("a/._x.npy", b"hidden"), ("a/x.npy", b"123"), ("a/y.npy", b"4567"))
    started = tmp_path / ".unpacking-target"
    started.mkdir()
    (started / "x.npy").write_bytes(b"abc")  # complete, so it is not written again
    (started / "y.npy").write_bytes(b"4")
    (started / "of_another.npy").touch()
    assert unpack(source, tmp_path / "target") == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == {
        "x.npy": b"abc",
        "y.npy": b"4567",
    }
    with pytest.raises(ValueError, match=r"must have files with \.npy, got none in 'a\.tar\.gz'"):
        unpack(archive(tmp_path), tmp_path / "empty")


def test_slides_of_camelyon17_become_bag_files_by_center_and_patient(tmp_path):
    content = aem_file(NAMES, num_classes=4)
    repo = "dazhangyu123/AEM-dataset"
    files = {"CAMELYON17/patch_feats_pretrain_medical_ssl.h5": content}
    files["CAMELYON16/patch_feats_pretrain_medical_ssl.h5"] = aem_file(["test_001"])
    with serve(Hub(repo, files)) as hub:
        table, _ = obtain(hub, tmp_path, name="camelyon17_aem", encoder="medical_ssl")
    rows = read(table)
    assert {(row["site"], row["split"]) for row in rows} == {
        ("0", "train"), ("1", "train"), ("2", "train"), ("3", "test"), ("4", "test")
    }  # fmt: skip
    assert rows[7]["patient"] == "patient_021"
    items = load_cohort(table)
    with h5py.File(io.BytesIO(content)) as file:
        for item in items:
            bag = read_bag(item["image"], ["features", "coords", "encoder"])
            assert np.array_equal(bag["features"].numpy(), file[item["case_id"]]["feat"][()])
            assert np.array_equal(bag["coords"].numpy(), file[item["case_id"]]["coords"][()])
            assert (bag["encoder"], item["label"]) == ("medical_ssl", file[item["case_id"]].attrs["label"])


@pytest.mark.parametrize("name", ["patient_100_node_0", "tumor_001", "patient_01_node_0"])
def test_a_name_that_is_no_labeled_slide_of_camelyon17_is_refused(name):
    from experiments.public_sets.cohort import camelyon17_slide

    with pytest.raises(ValueError, match=rf"labeled slide such as .*, got '{name}'"):
        camelyon17_slide(name)


def test_damaged_files_of_slides_are_refused(tmp_path):
    from experiments.public_sets.archives import slide_labels, split_groups

    path = tmp_path / "a.h5"
    path.write_bytes(aem_file(["a"])[:-200])
    with pytest.raises(ValueError, match=r"`path` must be an undamaged HDF5 file, got 'a\.h5'"):
        slide_labels(path)
    with h5py.File(path, "w") as file:
        file.create_group("a").attrs["label"] = "tumor"
        file["a"]["feat"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"a class number as `label` of each slide, got \['a'\]"):
        slide_labels(path)
    with pytest.raises(ValueError, match=r"features `feat` \(N, F\) in each group, got none in 'a'"):
        split_groups(path, tmp_path / "target", "x")


@pytest.mark.slow(buys="a public set, from a server like the hub to the table of results, by its one command")
def test_the_command_trains_and_prints_the_published_values_beside(scans, tmp_path, capsys):
    from experiments.reproduce import main

    more = ["--methods", "ABMIL,WindowMIL", "--seeds", "0", "--epochs", "2", "--num_samples", "20", "--jobs", "1"]
    name, *rest = words(scans, tmp_path, *more)
    main([name, *rest])
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["ABMIL", "WindowMIL"]
    assert result["data"]["revision"] == COMMIT
    assert result.keys() >= {"command", "commit", "seeds", "versions", "rows", "note", "wall_seconds"}
    for row in result["rows"]:
        assert set(row["values"]) == {
            "bag_auroc", "bag_accuracy", "bag_macro_f1", "instance_auroc", "center_auroc"
        }  # fmt: skip
        assert f"| {row['name']} | {row['values']['bag_auroc']:.3f} ± " in out
    assert "accuracy 0.813, F1 0.788 (resnet50) | same scans, features and test part" in out
    assert "| slice-supervised reference | - | - | - | - | - | slice AUROC 0.896" in out
    study = tmp_path / "resnet18" / "seed_0"
    assert (study / "report.html").exists()
    (fold,) = json.loads((study / "splits.json").read_text())["folds"]
    assert [len(fold[part]) for part in ("train", "val", "test")] == [20, 4, 16]
    assert set(fold["test"]) == {f"bag_{i:02d}" for i in range(40) if i % 5 < 2}


def test_rows_are_means_over_seeds_with_each_published_row_once():
    from experiments.public_sets.table import beside, make_rows

    rows = make_rows({"A": [{"bag_auroc": 0.7}, {"bag_auroc": 0.9}], "B": [{"bag_auroc": 0.5}]})
    assert rows[0]["seeds"] == {"bag_auroc": [0.7, 0.9]}
    published = [{"method": m, "values": v, "comparable": "yes", "source": "S"} for m, v in ("A1", "A2", "C3")]
    assert beside(rows, published, "slice").splitlines()[2:] == [
        "| A | 0.800 ± 0.100 | 1 | yes | S |",
        "| A | - | 2 | yes | S |",
        "| B | 0.500 ± 0.000 | - | - | - |",
        "| C | - | 3 | yes | S |",
    ]


def test_the_names_of_the_command_are_those_of_the_sets():
    from experiments.public_sets.sets import SETS
    from experiments.public_sets.table import published_rows
    from experiments.reproduce import PUBLIC_SETS

    assert list(SETS) == list(PUBLIC_SETS)
    assert {name for name in SETS if not published_rows(name)} == {"panda"}


def test_archives_of_tests_are_the_same_bytes_each_time():
    assert make_archive({"a": np.arange(3)}) == make_archive({"a": np.arange(3)})
