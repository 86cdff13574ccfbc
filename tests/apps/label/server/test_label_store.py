"""Tests of the datastores, in a process of the server's environment."""

import json

import pytest

from tests.apps.conftest import ROOT, run

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="no label of a reader is ever lost")]


@pytest.fixture(scope="module")
def found(label_python, tmp_path_factory):
    program = ROOT / "tests/apps/label/server/store_changes.py"
    return json.loads(run(label_python, program, tmp_path_factory.mktemp("stores")).splitlines()[-1])


def test_label_store_loses_no_label_while_another_process_scores(found):
    assert found["labels"] == {"given": 390, "lost": 0, "last": [194, 194], "unscored": 0}


def test_label_store_keeps_all_on_a_full_disk_and_starts_after_damage(found):
    assert found["disk"] == {"failed": 2, "left": [194, "first"], "restored": [194, 194]}


def test_archive_store_takes_only_readers_segmentations_for_labels(found):
    assert found["archive"]["readers"] == ["1.2.3"]


def test_archive_store_is_broken_by_no_mask(found):
    assert found["archive"]["mask"] == 400
    assert found["archive"]["labeled by a mask"] == [True, None]


def test_archive_store_takes_series_of_the_archive_only(found):
    answers = {name: found["archive"][name] for name in ("outside", "unknown", "segmentation", "upload")}
    assert answers == {"outside": 400, "unknown": 404, "segmentation": 404, "upload": 400}


def test_archive_store_keeps_labels_beside_the_app(found):
    assert [found["archive"][name] for name in ("info", "file", "after the cache")] == [200, 200, 1]


def test_safe_app_starts_on_an_archive_without_a_network(found):
    assert found["offline"] == ["ArchiveStore", True]


def test_accept_signed_tokens_lets_the_realm_sign_in_and_nobody_else(found):
    assert found["signed_in"] == ["ann"]
