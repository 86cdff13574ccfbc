"""Tests of archives of PyTorch that other programs packed or damaged: the values of ``torch.load``, or an error."""

import io
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag

X = torch.arange(40.0).view(10, 4) / 8 - 1
OTHER = b"little" if sys.byteorder == "big" else b"big"
TENSORS = {
    "plain": X,
    "half": X.half(),
    "bfloat16": X.bfloat16(),
    "integers": X.to(torch.int16),
    "unsigned": (X * 8 + 8).to(torch.uint16),
    "columns": X.T.contiguous().T,
    "second_half": torch.cat([X, X + 5])[10:],
    "every_other_row": torch.cat([X, X + 5])[::2],
    "some_columns": torch.cat([X, X + 5], 1)[:, 2:6],
    "repeated": X[:1].expand(10, 4),
    "negative": torch.complex(X, X + 1).conj().imag,
    "parameter": torch.nn.Parameter(X),
    "leading_axis": X[None],
    "one_axis_of_none": torch.zeros(0, 4),
}


class NoSeek(io.RawIOBase):
    """Stream without a position, for which a zip archive has data descriptors."""

    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


def repack(source, target, edit=None, method=zipfile.ZIP_STORED, names=None, descriptors=False, zip64=False):
    """Write the archive ``source`` anew; ``edit`` maps the name and content of a member to its new content, or None."""
    with (
        zipfile.ZipFile(source) as old,
        target.open("wb") as file,
        zipfile.ZipFile(NoSeek(file) if descriptors else file, "w", method) as new,
    ):
        for name in names or old.namelist():
            content = old.read(name) if edit is None else edit(name.partition("/")[2], old.read(name))
            if content is not None:
                with new.open(zipfile.ZipInfo(name) if method == 0 else name, "w", force_zip64=zip64) as member:
                    member.write(content)
    return target


def saved(path, content=X):
    torch.save(content, path)
    return path


def swapped(itemsize):
    """Return an edit that makes an archive one of a machine with the other byte order."""

    def edit(name, content):
        if name.startswith("data/"):
            return np.frombuffer(content, f"u{itemsize}").byteswap().tobytes()
        return OTHER if name == "byteorder" else content

    return edit


def loaded(path):
    """Return the features as ``torch.load`` reads them, or None if it refuses the file."""
    try:
        content = torch.load(path, weights_only=True)
        if isinstance(content, dict):
            (content,) = [
                content[k] for k in content if k == "features" or (k != "coords" and "features" not in content)
            ]
        features = content.detach()
    except Exception:  # of many kinds
        return None
    features = features[0] if features.ndim == 3 else features
    return features.resolve_neg()


def check(path):
    """Check that every way to read ``path`` gives the values of ``torch.load``, or a BagFileError."""
    expected, rows = loaded(path), [7, 2, 2, 9]
    reads = [
        (slice(None), lambda: read_bag(path)),
        (slice(3, 4), lambda: read_bag(path, start=3, stop=4)),
        (rows, lambda: read_bag(path, rows=rows)),
    ]
    for part, read in reads:
        try:
            got = read()["features"]
        except ValueError as error:
            assert isinstance(error, BagFileError) or "must be from 0 to" in str(error) or "must be rows" in str(error)  # noqa: PT017
            assert path.name in str(error)  # noqa: PT017
        else:
            assert expected is not None
            assert torch.equal(got, expected[part])
            assert got.dtype == expected.dtype


PACKED = {
    "stored": {},
    "deflated": {"method": zipfile.ZIP_DEFLATED},
    "descriptors": {"descriptors": True},
    "deflated_with_descriptors": {"method": zipfile.ZIP_DEFLATED, "descriptors": True},
    "zip64": {"zip64": True},
    "other_byte_order": {"edit": True},
    "deflated_other_byte_order": {"edit": True, "method": zipfile.ZIP_DEFLATED},
    "no_byte_order": {"edit": lambda name, content: None if name == "byteorder" else content},
}


@pytest.mark.filterwarnings("ignore:.* is read whole even for a few of its rows")
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("kind", TENSORS)
def test_torch_archive_reads_what_other_programs_packed(tmp_path, kind, packed):
    tensor, options = TENSORS[kind], dict(PACKED[packed])
    if options.get("edit") is True:
        options["edit"] = swapped(tensor.element_size() if tensor.dtype != torch.uint16 else 1)
    path = repack(
        saved(tmp_path / "a.pt", {"coords": torch.zeros(len(tensor.view(-1, 4)), 2), "features": tensor}),
        tmp_path / "b.pt",
        **options,
    )
    expected = loaded(path)
    info, got = inspect_bag(path), read_bag(path)["features"]
    assert torch.equal(got, expected)
    assert (info.num_instances, info.in_features, info.dtype) == (*expected.shape, expected.dtype)
    if len(expected):
        assert torch.equal(read_bag(path, rows=[7, 2, 2])["features"], expected[[7, 2, 2]])


def test_torch_archive_reads_files_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        for content in (X, X.T.contiguous().T):
            assert torch.equal(read_bag(saved(tmp_path / "a.pt", content))["features"], content)
    finally:
        torch.serialization.set_crc32_options(True)


def cut(name, content):
    return content[:100] if name == "data/0" else content


def extend(name, content):
    return content + bytes(16) if name == "data/0" else content


def fewer_numbers(name, content):
    return content.replace(b"K(tq", b"K\x05tq") if name == "data.pkl" else content


DAMAGED = {
    "short_member": {"edit": cut},
    "short_packed_member": {"edit": cut, "method": zipfile.ZIP_DEFLATED},
    "long_member": {"edit": extend},
    "small_storage": {"edit": fewer_numbers},
    "small_storage_and_member": {"edit": lambda n, c: c[:20] if n == "data/0" else fewer_numbers(n, c)},
    "unknown_byte_order": {"edit": lambda n, c: b"middle" if n == "byteorder" else c},
    "no_data": {"edit": lambda n, c: None if n == "data/0" else c},
    "no_version": {"edit": lambda n, c: None if n in ("version", ".data/version") else c},
    "new_version": {"edit": lambda n, c: b"99\n" if n in ("version", ".data/version") else c},
    "bzip2": {"method": zipfile.ZIP_BZIP2},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_torch_archive_refuses_what_torch_load_refuses(tmp_path, damage):
    path = repack(saved(tmp_path / "a.pt"), tmp_path / "b.pt", **DAMAGED[damage])
    assert loaded(path) is None
    for read in (inspect_bag, read_bag, lambda p: read_bag(p, rows=[1])):
        with pytest.raises(BagFileError, match=r"`path` must .* got .*'b\.pt'"):
            read(path)


def test_torch_archive_refuses_several_members_of_one_name(tmp_path):
    path = saved(tmp_path / "a.pt")
    for name in ("data/0", "DATA/0"):  # PyTorch finds both
        with pytest.warns(UserWarning, match="Duplicate") if name == "data/0" else warnings.catch_warnings():
            repack(path, tmp_path / "b.pt")
            with zipfile.ZipFile(tmp_path / "b.pt", "a") as archive:
                archive.writestr(f"a/{name}", bytes(160))
        with pytest.raises(BagFileError, match=r"with one member of each name, got several in 'b\.pt'"):
            read_bag(tmp_path / "b.pt")


def test_torch_archive_refuses_an_archive_behind_another(tmp_path):
    path = saved(tmp_path / "a.pt")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BagFileError, match=r"begins with its first member, got other bytes before in 'a\.pt'"):
        read_bag(path)


@pytest.mark.parametrize("kind", ["plain", "some_columns"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_torch_archive_notices_a_flipped_bit(tmp_path, kind, method):
    path = repack(saved(tmp_path / "a.pt", TENSORS[kind]), tmp_path / "b.pt", method=method)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("a/data/0")
    raw = bytearray(path.read_bytes())
    raw[info.header_offset + 30 + len(info.filename) + info.compress_size - 8] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BagFileError, match=r"undamaged bag file|match its checksum, got other bytes"):
        read_bag(path)


def test_torch_archive_gives_tensors_without_an_axis_as_attributes(tmp_path):
    content = {"features": X, "label": torch.tensor(1), "tile_size": torch.tensor(256.0), "part": X[3, 2]}
    for path in (saved(tmp_path / "a.pt", content), repack(tmp_path / "a.pt", tmp_path / "b.pt", method=8)):
        assert read_bag(path, ["label", "tile_size", "part"]) == {"label": 1, "tile_size": 256.0, "part": 0.75}


def test_torch_archive_refuses_a_tensor_without_values(tmp_path):
    path = saved(tmp_path / "a.pt", torch.zeros(10, 4, device="meta"))
    with pytest.raises(BagFileError, match=r"features of real numbers, got a tensor without values in 'a\.pt'"):
        read_bag(path)


def test_torch_archive_takes_no_other_tensor_for_features_without_values(tmp_path):
    path = saved(tmp_path / "a.pt", {"x": torch.zeros(10, 4, device="meta"), "weights": X})
    with pytest.raises(BagFileError, match=r"features under one of the names .* got \['weights', 'x'\] in 'a\.pt'"):
        read_bag(path)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "add", "drop", "rename"]),
        st.integers(0, 7),
        st.floats(0, 0.999),
        st.integers(1, 255),
    ),
    max_size=3,
)


EDITED = ("/data.pkl", "/byteorder", "/version", "/data/0", "/data/1")


def edited(members, edits):
    """Apply ``edits`` to the (name, content) of those members of an archive that tell the values."""
    for kind, index, position, value in edits:
        edible = [i for i, (name, _) in enumerate(members) if name.endswith(EDITED)]
        if not edible:
            break
        i = edible[index % len(edible)]
        name, content = members[i]
        at = int(position * len(content))
        if kind == "flip" and content:
            members[i] = name, content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]
        elif kind == "cut":
            members[i] = name, content[:at]
        elif kind == "add":
            members[i] = name, content + bytes([value]) * (1 + value % 9)
        elif kind == "drop":
            del members[i]
        else:
            members[i] = members[value % len(members)][0], content
    return members


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(TENSORS)),
    edits=EDITS,
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    order=st.randoms(use_true_random=False),
)
@pytest.mark.filterwarnings("ignore:Duplicate name", "ignore:.* is read whole even")
def test_torch_archive_gives_the_values_of_torch_load_or_an_error(tmp_path, kind, edits, method, order):
    """The edits have valid checksums, so that only the sizes and the pickle can tell."""
    path = tmp_path / "b.pt"
    with zipfile.ZipFile(
        saved(tmp_path / "a.pt", {"coords": torch.zeros(10, 2), "features": TENSORS[kind]})
    ) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    order.shuffle(members)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in edited(members, edits):
            archive.writestr(name, content)
    check(path)
