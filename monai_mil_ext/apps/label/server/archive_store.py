"""Datastore of a DICOMweb archive, whose labels are kept beside the app and not in a cache."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from monai_mil_ext.apps.label._monailabel import DICOMWebDatastore
from monai_mil_ext.apps.label.errors import http_error

from .client_errors import explain
from .client_names import check_uid
from .label_store import BAG_LABEL, FINAL, LabelStore, checked_info
from .label_table import LabelTable

__all__ = ["ArchiveStore", "without_own_results"]

OURS = "monai_mil_ext"  # manufacturer in the results that this package writes
MANUFACTURER, SERIES, STUDY = "00080070", "0020000E", "0020000D"
logger = logging.getLogger(__name__)


class ArchiveStore(DICOMWebDatastore, LabelStore):
    """Datastore of an archive; an image is the UID of a series.

    Labels and scores are in a table (:py:class:`LabelTable`). Segmentations that this package wrote are no labels.

    Args:
        client: client of the archive.
        *args: see ``DICOMWebDatastore`` of MONAI Label.
        table: file of the table.
        **options: see ``DICOMWebDatastore``.
    """

    def __init__(self, client: Any, *args: Any, table: str | os.PathLike[str], **options: Any) -> None:
        self.table = LabelTable(table)
        without_own_results(client)
        super().__init__(client, *args, **options)

    def get_image_uri(self, image_id: str) -> str:
        """Return the file of a series, which is fetched first if need be."""
        return str(super().get_image_uri(self._known(image_id, "image")))

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Return the file of a label: that of an image, or of a series of segmentations for its ``image_id``."""
        label = check_uid(label_id, "label")
        if image_id:
            return str(super().get_label_uri(label, label_tag, check_uid(image_id, "image")))
        return str(super(DICOMWebDatastore, self).get_label_uri(label, label_tag))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return the info of a series, with its label and scores."""
        return {**super().get_image_info(image_id), **self.table.info(image_id)}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Set values of a series, whether it was fetched or not."""
        image = self._known(image_id, "image")
        self.check_info(checked_info(info))
        self.table.update(image, self._with_source(image, info))

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refuse an upload, which would take the place of a series of the archive."""
        raise http_error("`file` must be stored in the archive, since that holds the images of this server.")

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Save a mask, which goes to the archive as DICOM SEG, or the label of a JSON file."""
        image = self._known(image_id, "image")
        if label_filename.endswith(".json"):
            self._check_label_file(label_filename)
            content = json.loads(Path(label_filename).read_text("utf-8"))
            if not isinstance(content, dict) or BAG_LABEL not in content:
                raise http_error(f"`label` must be a JSON object with `{BAG_LABEL}`.")
            self.update_image_info(image, {BAG_LABEL: content[BAG_LABEL]})
            return image
        if label_tag == FINAL and not label_filename.endswith(".bin"):
            self.mask_rule(label_filename, label_info)  # what it refuses must not reach the archive
        try:
            stored = super().save_label(image, label_filename, label_tag, label_info, label_id)  # type: ignore[call-arg]
            return str(stored)
        except Exception as error:  # of any of the libraries that read the mask
            if hasattr(error, "status_code") or explain(error)[0] != 500:
                raise
            logger.exception("a label can't be stored")
            raise http_error("`label` must be a mask with the voxels of the series.") from error

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return series with a segmentation of a reader in the archive, or with a label of the scan."""
        return sorted({*super().get_labeled_images(label_tag, labels), *self.table.images(BAG_LABEL)})

    def _known(self, image: Any, what: str) -> str:
        uid = check_uid(image, what)
        if uid not in self.list_images() and not self._is_new(uid):
            raise http_error(f"`{what}` must be a series of the archive, got {uid!r}.", 404)
        return uid

    def _is_new(self, uid: str) -> bool:
        """Return whether the archive got a series after the last listing."""
        found = self._client.search_for_series(search_filters={**self._search_filter, "SeriesInstanceUID": uid})
        return any(_value(entry, SERIES) == uid for entry in found)


def without_own_results(client: Any) -> None:
    """Leave segmentations that this package wrote out of what ``client`` finds.

    MONAI Label takes every segmentation for a label of a reader.
    """
    search = client.search_for_series

    def search_for_series(*args: Any, **options: Any) -> list[Any]:
        found: list[Any] = search(*args, **options)
        if (options.get("search_filters") or {}).get("Modality") != "SEG":
            return found
        return [entry for entry in found if not _is_ours(client, entry)]

    client.search_for_series = search_for_series


def _is_ours(client: Any, entry: Any) -> bool:
    objects = client.retrieve_series_metadata(_value(entry, STUDY), _value(entry, SERIES))
    return any(_value(one, MANUFACTURER) == OURS for one in objects)


def _value(entry: Any, tag: str) -> str:
    values = entry.get(tag, {}).get("Value") or [""]
    return str(values[0])
