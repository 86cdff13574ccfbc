"""BagOrStatus: a bag, or the reason why there is none; never a path, never another error hidden."""

import pytest
import torch
from monai.transforms import Compose

from monai_mil_ext.data import write_bag
from monai_mil_ext.transforms import BagOrStatus, LoadBagd, LoadBagLabeld

LOAD = Compose([LoadBagd(["image", "position"]), LoadBagLabeld("label", num_classes=2)])
SHAPES = {"image": [3], "position": []}


def item(path, **more):
    return {"image": str(path), "case_id": "a1", "patient": "a", "label": 1} | more


@pytest.fixture
def file(tmp_path):
    write_bag(tmp_path / "b.h5", {"features": torch.ones(4, 3), "position": torch.arange(4.0)})
    return tmp_path / "b.h5"


def test_a_sound_bag_is_that_of_the_transform(file):
    out, expected = BagOrStatus(LOAD, SHAPES)(item(file)), LOAD(item(file))
    assert out.pop("status") == "done"
    assert out.keys() == expected.keys()
    assert torch.equal(out["image"], expected["image"])


def test_an_empty_bag_is_a_blank_one_that_says_so(tmp_path):
    write_bag(tmp_path / "b.h5", {"features": torch.ones(0, 3), "position": torch.ones(0)})
    out = BagOrStatus(LOAD, SHAPES)(item(tmp_path / "b.h5"))
    assert out.keys() == {"image", "position", "case_id", "patient", "status"}
    assert out["status"] == "empty"
    assert torch.equal(out["image"], torch.zeros(1, 3))
    assert torch.equal(out["position"], torch.zeros(1))


def test_a_bag_that_cannot_be_read_says_why_and_not_where(file):
    load = BagOrStatus(LOAD, SHAPES)
    assert load(item(file.parent / "absent.h5"))["status"].startswith(
        "unreadable: `path` must be a bag file that exists"
    )
    file.write_bytes(file.read_bytes()[:200])
    status = load(item(file))["status"]
    assert status.startswith("unreadable: ")
    assert "b.h5" in status
    assert str(file.parent) not in status

    def open_it(data):
        with open(data["image"], "rb"):
            pass

    gone = BagOrStatus(open_it, SHAPES)(item(file.parent / "absent.h5"))
    assert gone["status"] == "unreadable: No such file or directory"


def test_what_no_file_can_be_blamed_for_is_raised(file):
    def broken(data):
        raise TypeError("a mistake in the program")

    with pytest.raises(TypeError, match="a mistake in the program"):
        BagOrStatus(broken, SHAPES)(item(file))
    with pytest.raises(ValueError, match="`instance_shapes` must have the shape of an instance for a key"):
        BagOrStatus(LOAD, {})
