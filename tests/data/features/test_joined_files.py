"""Tests of feature files of several encoders that are joined to one file a case."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.data import FeatureStatistics, InstanceSource, join_bag_files, read_bag, read_sources, write_bag
from monai_mil_ext.networks.nets import ABMIL, SourceNet
from monai_mil_ext.transforms import JoinSourcesd


def write(folder, name, size, count=4, dtype=torch.float32, **attributes):
    draw = torch.Generator().manual_seed(size)
    arrays = {"features": torch.randn(count, size, generator=draw).to(dtype)}
    if "unit" in attributes:
        arrays["coords"] = torch.arange(2 * count).view(count, 2) * 100
    write_bag(folder / f"{name}.h5", arrays, attributes)
    return arrays["features"]


@pytest.fixture
def folders(tmp_path):
    return {name: tmp_path / name for name in ("uni", "conch")}


def test_a_joined_file_is_the_bag_of_the_transform(folders, tmp_path):
    bags = {"uni": write(folders["uni"], "a", 5), "conch": write(folders["conch"], "a", 3, count=2)}
    joined = join_bag_files(folders, tmp_path / "joined")
    assert [path.name for path in joined.files] == ["a.h5"]
    assert joined.sources == read_sources(joined.files[0]) == {"uni": 5, "conch": 3}
    expected = JoinSourcesd(["uni", "conch"])(bags)["image"]
    assert_close(read_bag(joined.files[0])["features"], expected, rtol=0, atol=0)
    assert not read_sources(folders["uni"] / "a.h5")


def test_the_encoder_names_all_sources_in_their_order(folders, tmp_path):
    for name, encoder in (("uni", "uni_v1"), ("conch", "conch")):
        write(folders[name], "a", 4, encoder=encoder, mpp=0.5, magnification=20.0 if name == "uni" else 10.0)
    there = join_bag_files(folders, tmp_path / "there")
    back = join_bag_files(dict(reversed(folders.items())), tmp_path / "back")
    sources = [InstanceSource.from_bag(result.files[0]) for result in (there, back)]
    assert sources[0].encoder == "uni (uni_v1) + conch"
    assert (sources[0].mpp, sources[0].magnification, sources[0].width) == ((0.5,), (), 5)
    assert sources[0].compare(sources[1]).message() == (
        "trained on encoder uni (uni_v1) + conch, got encoder conch + uni (uni_v1)"
    )


@pytest.mark.parametrize(("units", "kept"), [(("level 0", "level 0"), True), (("level 0", "mm"), False)])
def test_places_are_kept_in_one_unit_only(folders, tmp_path, units, kept):
    for (name, folder), unit in zip(folders.items(), units, strict=True):
        write(folder, "a", 4, unit=unit, dtype=torch.float16 if name == "uni" or kept else torch.float32)
    bag = read_bag(join_bag_files(folders, tmp_path / "joined").files[0], ["features", "coords"], None, None, True)
    assert ("coords" in bag) is kept
    assert bag["features"].dtype == (torch.float16 if kept else torch.float32)


def test_a_case_without_a_source_is_left_out_or_joined_from_the_others(folders, tmp_path):
    write(folders["uni"], "a", 5)
    write(folders["conch"], "a", 3)
    few = write(folders["conch"], "b", 3)
    joined = join_bag_files(folders, tmp_path / "joined")
    assert ([path.name for path in joined.files], joined.incomplete) == (["a.h5"], ["b"])
    joined = join_bag_files(folders, tmp_path / "joined", allow_missing=True)
    assert ([path.name for path in joined.files], joined.incomplete) == (["a.h5", "b.h5"], ["b"])
    features = read_bag(joined.files[1])["features"]
    assert_close(features[:, :3], few, rtol=0, atol=0)
    assert features[:, 3:].tolist() == [[0, 0, 1]] * 4  # its index is that of its source


def test_what_cannot_be_joined_is_named(folders, tmp_path):
    write(folders["uni"], "a", 5)
    write(folders["conch"], "b", 3)
    with pytest.raises(ValueError, match="`folders` must have files of one name for a case, got none in common of 2"):
        join_bag_files(folders, tmp_path / "joined")
    with pytest.raises(ValueError, match="`folders` must be of at least 2 sources, got 1"):
        join_bag_files({"uni": folders["uni"]}, tmp_path / "joined")
    write(folders["uni"], "b", 4)
    write(folders["conch"], "a", 3)
    with pytest.raises(ValueError, match=r"one width and encoder .*, got \[\(4, 'uni'\), \(5, 'uni'\)\] of 'uni'"):
        join_bag_files(folders, tmp_path / "joined")
    torch.save(torch.ones(2, 3), folders["conch"] / "a.pt")
    with pytest.raises(ValueError, match="`folders` must have one file of each name, got 1 more of 'conch'"):
        join_bag_files(folders, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize("value", ["uni", "[1]", '{"uni": "5"}', '{"uni": 0}', "{}", 3.0])
def test_an_attribute_of_another_tool_is_no_source(tmp_path, value):
    write_bag(tmp_path / "a.h5", {"features": torch.ones(2, 3)}, {"sources": value})
    assert read_sources(tmp_path / "a.h5") == {}


def test_the_index_of_the_source_is_never_standardized(folders, tmp_path):
    """Where 9 of 10 instances are of the second source, its standardized index would round to that of the first."""
    write(folders["uni"], "a", 3, count=1)
    write(folders["conch"], "a", 3, count=9)
    joined = join_bag_files(folders, tmp_path / "joined")
    items = [{"image": str(joined.files[0])}]
    net = SourceNet(ABMIL(4, 2), joined.sources, hidden_size=4)
    statistics = FeatureStatistics.for_network(net, items, 4)
    mean, scale = (torch.from_numpy(part) for part in statistics)
    bag = (read_bag(joined.files[0])["features"] - mean) / scale
    assert net._source_index(bag).flatten().tolist() == [0] + [1] * 9
    assert FeatureStatistics.for_network(ABMIL(4, 2), items, 4).scale[-1] < 1
    assert FeatureStatistics.for_network(ABMIL(4, 2), items, 4, standardize=False).scale.tolist() == [1] * 4
