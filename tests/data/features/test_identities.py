"""Tests of input_identity and item_identity: which changes of an input are noticed."""

import os
import time
from pathlib import Path

import pytest

from monai_mil_ext.data import content_identity, input_identity, item_identity
from monai_mil_ext.data.features.identities import BLOCK, SPACED

SIZE = 3_000_000
SAMPLED = [SIZE - BLOCK, *((SIZE - BLOCK) * k // (SPACED + 1) for k in range(SPACED + 1))]  # starts of blocks


def write(path, size=SIZE, changed=None):
    """Write a file whose modification time is always the same, with one byte changed."""
    content = bytearray(size)
    if changed is not None:
        content[changed] = 1
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1_700_000_000_000_000_007))
    return path


@pytest.mark.parametrize("changed", [0, SIZE - 1, *SAMPLED, *(start + BLOCK - 1 for start in SAMPLED)])
def test_input_identity_differs_for_one_byte_of_a_sampled_block(tmp_path, changed):
    before = input_identity(write(tmp_path / "a"))
    assert input_identity(write(tmp_path / "a")) == before
    assert input_identity(write(tmp_path / "a", changed=changed)) != before


def test_input_identity_of_a_small_file_covers_every_byte(tmp_path):
    for size in (1, BLOCK - 1, BLOCK + 1, (SPACED + 2) * BLOCK):
        before = input_identity(write(tmp_path / "a", size))
        places = range(0, size, max(1, BLOCK // 3))
        assert all(input_identity(write(tmp_path / "a", size, changed=k)) != before for k in (*places, size - 1))


def test_input_identity_does_not_see_a_byte_between_blocks_with_size_and_time_restored(tmp_path):
    """The documented limit; the time alone reveals the change."""
    before = input_identity(write(tmp_path / "a"))
    path = write(tmp_path / "a", changed=SAMPLED[1] + BLOCK + 5)
    assert input_identity(path) == before
    os.utime(path, ns=(1, 1_700_000_000_000_000_008))
    assert input_identity(path) != before


def test_input_identity_depends_on_size_but_not_on_the_name(tmp_path):
    one = input_identity(write(tmp_path / "a", 5))
    assert input_identity(write(tmp_path / "Secretname", 5)) == one
    assert input_identity(write(tmp_path / "a", 6)) != one
    assert input_identity(write(tmp_path / "a", 0)) != one
    assert input_identity(write(tmp_path / "a", SIZE)) != input_identity(write(tmp_path / "b", SIZE + 1))
    assert input_identity(str(tmp_path / "Secretname")) == one


def folder(path, *changed, names=("1.dcm", "2.dcm", "sub/3.dcm")):
    for name in names:
        write(path / name, 100, 50 if name in changed else None)
    return path


def test_input_identity_of_a_folder_covers_every_file_and_its_name(tmp_path):
    before = input_identity(folder(tmp_path / "a"))
    assert input_identity(folder(tmp_path / "b", names=("sub/3.dcm", "2.dcm", "1.dcm"))) == before
    others = [folder(tmp_path / name, name) for name in ("1.dcm", "2.dcm", "sub/3.dcm")]
    others += [folder(tmp_path / "c", names=("1.dcm", "2.dcm")), folder(tmp_path / "d", names=("1.dcm", "4.dcm"))]
    others.append(folder(tmp_path / "f", names=("1.dcm", "2.dcm", "other/3.dcm")))
    swapped = folder(tmp_path / "e", "1.dcm", names=("2.dcm", "1.dcm", "sub/3.dcm"))
    others.append(swapped / "sub")
    assert before not in [input_identity(other) for other in others]
    (tmp_path / "a" / "4.dcm").symlink_to("4.dcm")  # linked to itself
    os.mkfifo(tmp_path / "a" / "pipe")
    assert input_identity(tmp_path / "a") == before


def test_input_identity_of_a_folder_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    before, walk = input_identity(folder(tmp_path / "a")), os.walk
    monkeypatch.setattr(os, "walk", lambda *args, **kw: ((a, b, c[::-1]) for a, b, c in reversed([*walk(*args, **kw)])))
    assert input_identity(tmp_path / "a") == before


@pytest.mark.parametrize(("header", "data"), [("s.mhd", "s.raw"), ("s.hdr", "s.img"), ("s.mrxs", "s/Data0.dat")])
def test_input_identity_of_a_header_covers_its_data(tmp_path, header, data):
    write(tmp_path / header, 10)
    write(tmp_path / data, 100)
    before = input_identity(tmp_path / header)
    write(tmp_path / "s2.raw", 100)
    assert input_identity(tmp_path / header) == before
    write(tmp_path / data, 100, changed=50)
    assert input_identity(tmp_path / header) != before


def test_input_identity_of_several_paths(tmp_path):
    a, b = write(tmp_path / "a", 5), write(tmp_path / "b", 6)
    assert input_identity([a, b]) == input_identity((str(a), b))
    assert len({input_identity(paths) for paths in ([a, b], [b, a], [a], a)}) == 4


def test_input_identity_of_nothing_is_an_error_without_a_name(tmp_path):
    for paths in (tmp_path / "Secretname", [tmp_path / "Secretname"]):
        with pytest.raises(FileNotFoundError, match="`path` must be a file or a folder that exists, got none"):
            input_identity(paths)


def test_content_identity_is_shared_by_copies_only(tmp_path):
    for name, content, time_ns in (("a", b"x" * 100, 1), ("b", b"x" * 100, 2), ("c", b"x" * 99 + b"y", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bag.h5").write_bytes(content)
        os.utime(tmp_path / name / "bag.h5", ns=(time_ns, time_ns))
    for paths in ([tmp_path / name for name in "abc"], [tmp_path / name / "bag.h5" for name in "abc"]):
        first, copy, other = map(content_identity, paths)
        assert first == copy != other
        assert input_identity(paths[0]) != input_identity(paths[1])


def test_item_identity_covers_image_reference_and_options_of_reading(tmp_path):
    item = {"case_id": "a", "patient": "p", "image": str(write(tmp_path / "i", 9)), "label": 1}
    item["reference"] = str(write(tmp_path / "r", 8))
    before = item_identity(item)
    assert item_identity({**item, "case_id": "b", "patient": str(tmp_path), "label": 0, "fold": "a/b"}) == before
    for change in (
        {"series": "2"},
        {"stack": "2"},
        {"slide_mpp": 0.5},
        {"magnification": 40},
        {"image": item["image"] + "x"},
        {"reference": item["image"]},
    ):
        assert item_identity({**item, **change}) != before
    assert item_identity(item, ["image", "label"]) != item_identity({**item, "label": 0}, ["image", "label"])
    write(tmp_path / "r", 8, changed=3)
    assert item_identity(item) != before


def test_item_identity_of_other_keys_and_of_resolutions():
    assert item_identity({"case_id": "a", "value": 1}) != item_identity({"case_id": "a", "value": 2})
    assert item_identity({"image": 1, "other": 1}) == item_identity({"image": 1, "other": 2})
    same = [item_identity({"image": 1, "slide_mpp": mpp}) for mpp in (0.5, "0.50")]
    assert same[0] == same[1] != item_identity({"image": 1, "slide_mpp": "coarse"})


def test_item_identity_of_relative_paths_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for item in ({"image": "i"}, {"image": ["i", "j"]}, {"image": 1.0, "mask": Path("i")}):
        write(tmp_path / "j", 9)
        write(tmp_path / "i", 9)
        before = item_identity(item)
        write(tmp_path / "i", 9, changed=0)
        assert item_identity(item) != before is not None


def test_item_identity_is_unknown_if_a_file_is_absent(tmp_path):
    present = str(write(tmp_path / "i", 9))
    for image in (tmp_path / "absent", str(tmp_path / "absent"), [present, str(tmp_path / "absent")]):
        assert item_identity({"image": image}) is None
    (tmp_path / "loop").symlink_to("loop")
    assert item_identity({"image": tmp_path / "loop"}) is None
    assert item_identity({"case_id": "a", "patient": "p"}) is None
    assert item_identity({"image": "scan_17"}) == item_identity({"image": "scan_17"}) is not None


def test_input_identity_reads_little_of_a_large_file(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 * 2**30)
    begin = time.process_time()
    input_identity(tmp_path / "large")
    assert time.process_time() - begin < 0.5
