"""Datastore of MONAI Label whose labels are never lost, and whose names stay in its folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from monai_mil_ext.apps.label._monailabel import FileLock, LocalDatastore
from monai_mil_ext.apps.label.errors import http_error
from monai_mil_ext.utils import atomic_path

from .client_names import check_extension, check_name

__all__ = ["LabelStore"]

FINAL = "final"
BAG_LABEL = "bag_label"
SOURCE = "bag_label_from"  # whether a mask implied the label
LABEL_ENDINGS = (".json", ".xml", ".bin", ".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif", ".geojson")
LARGEST_INFO = 65_536  # characters of the info of an image, as JSON
logger = logging.getLogger(__name__)


class LabelStore(LocalDatastore):
    """Datastore of a folder that several threads and processes may change at the same time.

    A change is made to what the file ``datastore_v2.json`` holds at that moment, under a lock, and written atomically;
    the content before it stays in ``datastore_v2.json.bak``, from which a damaged file is restored. Nothing is kept of
    a change that fails. Images are added and not replaced.

    Args:
        *args: see ``LocalDatastore`` of MONAI Label.
        **options: the same.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        folder = Path(options.get("datastore_path") or args[0])
        folder.mkdir(parents=True, exist_ok=True)
        self.check_info: Callable[[Mapping[str, Any]], None] = lambda info: None
        self.mask_rule: Callable[[str, Mapping[str, Any]], int | str | None] = lambda file, info: None
        self._threads = threading.RLock()
        self._processes = FileLock(folder / ".changes.lock", thread_local=False)
        self._depth = 0
        self._seen: tuple[int, ...] | None = None
        self._model: Any = None
        _restore(folder / options.get("datastore_config", "datastore_v2.json"))
        with self._change(reload=False):
            super().__init__(*args, **options)
            if not self._file.exists():
                self._update_datastore_file(lock=False)

    @property
    def _datastore(self) -> Any:
        """Content of the file as it is now, or that of the change in progress."""
        with self._threads:
            if self._depth == 0 and self._seen != _signature(self._file):
                self._reload()
            return self._model

    @_datastore.setter
    def _datastore(self, model: Any) -> None:
        self._model = model

    @property
    def _file(self) -> Path:
        return Path(self._datastore_config_path)

    @contextmanager
    def _change(self, reload: bool = True) -> Iterator[None]:
        """Make a change alone, from the newest content; after an error, the content is that of the file."""
        with self._threads, self._processes.acquire(poll_interval=0.005):
            if reload and self._depth == 0:
                self._reload()
            self._depth += 1
            try:
                yield
            except BaseException:
                if reload:
                    self._reload()
                raise
            finally:
                self._depth -= 1

    def _reload(self) -> None:
        self._depth += 1
        try:
            self._config_ts = 0.0
            self._init_from_datastore_file()
        finally:
            self._depth -= 1

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._threads:
            self._depth += 1
            try:
                signature = _signature(self._file)
                super()._init_from_datastore_file(throw_exception)
                self._seen = signature
            finally:
                self._depth -= 1

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._change(reload=False):
            try:
                content = self._model.model_dump(exclude={"base_path"})
                text = json.dumps(content, indent=2, default=str, allow_nan=False)
                type(self._model).model_validate_json(text)
            except ValueError:  # such a file would be the end of all labels
                raise http_error(
                    "`info` must be readable again: less deeply nested, of finite numbers, and without half characters."
                ) from None
            if self._file.exists():
                with atomic_path(_backup(self._file)) as temporary:  # no link: what damages the file would damage both
                    shutil.copyfile(self._file, temporary)
            with atomic_path(self._file) as temporary:
                temporary.write_text(text, "utf-8")
            self._config_ts = os.stat(self._file).st_mtime
            self._seen = _signature(self._file)

    def _reconcile_datastore(self) -> None:
        with self._change(reload=self._depth == 0):
            super()._reconcile_datastore()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image under a new ID."""
        image = check_name(image_id or self._to_id(Path(image_filename).name)[0], "image")
        endings = tuple(pattern.lstrip("*") for pattern in self._extensions)
        check_extension(image_filename, endings, "file")
        name = image + self._to_id(Path(image_filename).name)[1]
        with self._change(), _kept(Path(self._datastore.image_path()) / name):
            if image in self._model.objects:
                raise http_error("`image` must be a new ID, got one of the studies; remove it first.", 409)
            return str(super().add_image(image, image_filename, checked_info(image_info)))

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels."""
        with self._change():
            super().remove_image(self._known(image_id, "id"))
            self.refresh()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label; the one before it stays if this fails."""
        image, tag = self._known(image_id, "image"), check_name(label_tag, "tag")
        check_extension(label_filename, LABEL_ENDINGS, "label")
        self._check_label_file(label_filename)
        implied = self.mask_rule(label_filename, label_info or {}) if tag == FINAL else None
        with self._change():
            target = Path(self._datastore.label_path(tag)) / (image + self._to_id(Path(label_filename).name)[1])
            with _kept(target):
                label = str(super().save_label(image, label_filename, tag, label_info))
            if implied is not None:
                self.update_image_info(image, {BAG_LABEL: implied, SOURCE: "mask"})
            elif tag == FINAL:
                self._forget_mask(image)
            return label

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label."""
        label, tag = self._known(label_id, "id"), check_name(label_tag, "tag")
        with self._change():
            if not self._model.label(label, tag):
                raise http_error(f"`tag` must be that of a label of the image, got {tag!r}.", 404)
            super().remove_label(label, tag)
            self.refresh()
            if tag == FINAL:
                self._forget_mask(label)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Update the info of an image."""
        image = self._known(image_id, "image")
        self.check_info(checked_info(info))
        with self._change():
            super().update_image_info(image, self._with_source(image, info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Update the info of a label."""
        label, tag = check_name(label_id, "label"), check_name(label_tag, "tag")
        with self._change():
            super().update_label_info(label, tag, checked_info(info))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return images with a final label, or with a label of the scan in their info."""
        return [image for image, entry in self._datastore.objects.items() if _has_label(entry)]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the other images."""
        return [image for image, entry in self._datastore.objects.items() if not _has_label(entry)]

    def _with_source(self, image: str, info: dict[str, Any]) -> dict[str, Any]:
        """Return an info whose label is no longer that of a mask, unless the info says so."""
        was_implied = BAG_LABEL in info and self.get_image_info(image).get(SOURCE) is not None
        return {SOURCE: None, **info} if was_implied else info

    def _forget_mask(self, image: str) -> None:
        """Take back the label that an earlier mask implied."""
        if self.get_image_info(image).get(SOURCE) is not None:
            self.update_image_info(image, {BAG_LABEL: None})

    def _known(self, image: Any, what: str) -> str:
        name = check_name(image, what)
        if name not in self._datastore.objects:
            raise http_error(f"`{what}` must be one of the studies, got {name!r}.", 404)
        return name

    def _check_label_file(self, file: str) -> None:
        """Refuse a JSON file with a label that is no class."""
        if not file.endswith(".json"):
            return
        try:
            content = json.loads(Path(file).read_text("utf-8"))
        except (RecursionError, ValueError):
            raise http_error("`label` must be a readable JSON file.") from None
        if isinstance(content, dict):
            self.check_info(content)


def _has_label(entry: Any) -> bool:
    return FINAL in entry.labels or entry.image.info.get(BAG_LABEL) is not None


def checked_info(info: Any) -> dict[str, Any]:
    """Return an info that is a dictionary of reasonable size."""
    if not isinstance(info, dict):
        raise http_error("`info` must be a JSON object.")
    try:
        size = len(json.dumps(info, default=str))
    except RecursionError:
        size = LARGEST_INFO + 1
    if size > LARGEST_INFO:
        raise http_error(f"`info` must have at most {LARGEST_INFO} characters, got more.", 413)
    return info


def _signature(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _backup(file: Path) -> Path:
    return file.with_name(f"{file.name}.bak")


def _readable(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_text("utf-8")), dict)
    except (OSError, RecursionError, ValueError):
        return False


def _restore(file: Path) -> None:
    """Put the backup in the place of a damaged file, which is kept under another name."""
    if not file.exists() or _readable(file) or not _readable(_backup(file)):
        return
    logger.warning("%s is damaged; labels are those of %s", file.name, _backup(file).name)
    file.replace(file.with_name(f"{file.name}.damaged"))
    with atomic_path(file) as temporary:
        shutil.copyfile(_backup(file), temporary)


@contextmanager
def _kept(file: Path) -> Iterator[None]:
    """Keep a file that is replaced within the context until that has succeeded, and leave no partial one."""
    before = file.with_name(f".kept-{file.name}")
    existed = file.exists()
    if existed:
        file.replace(before)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        if existed:
            before.replace(file)
        raise
    with suppress(OSError):
        before.unlink(missing_ok=True)
