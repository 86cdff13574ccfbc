"""Tests of the segmentations that an archive's datastore sees."""

from types import SimpleNamespace

from monai_mil_ext.apps.label.server.archive_store import without_own_results


def entry(uid, maker=None):
    tags = {"0020000D": "1", "0020000E": uid, **({} if maker is None else {"00080070": maker})}
    return {tag: {"Value": [value]} for tag, value in tags.items()}


def test_without_own_results_hides_segmentations_of_this_package_only():
    makers = {"1.1": "monai_mil_ext", "1.2": "Hospital", "1.3": None}
    client = SimpleNamespace(
        search_for_series=lambda search_filters: [entry(uid) for uid in makers],
        retrieve_series_metadata=lambda study, series: [entry(series, makers[series])],
    )
    without_own_results(client)
    assert client.search_for_series(search_filters={"Modality": "SEG"}) == [entry("1.2"), entry("1.3")]
    assert len(client.search_for_series(search_filters={"Modality": "CT"})) == 3
