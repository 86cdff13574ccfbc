"""Identity of the model in DICOM objects: Algorithm Identification, TID 4019, and the codes of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import import_module
from typing import Any, NamedTuple

from monai_mil_ext.utils import optional_dependency, quote_names

__all__ = ["SCHEME", "ModelIdentity", "class_code"]

hd = optional_dependency("dicom", "highdicom")  # takes long to import

SCHEME = "99MONAIMIL"  # private coding scheme, since DICOM has no code for attention scores
MANUFACTURER = "monai_mil_ext"
DEFAULTS = {"name": MANUFACTURER, "version": "1"}
LONGEST = 64  # characters of a DICOM value of representation LO


class ModelIdentity(NamedTuple):
    """Identity of the model that made a result.

    Example:
        >>> model = ModelIdentity.of({"name": "tumor", "version": "2", "sha256": "0a1b"}, "", ["benign", "malignant"])
        >>> model.parameters()
        {'weights SHA-256': '0a1b', 'classes': 'benign, malignant'}
    """

    name: str
    version: str
    note: str = ""
    weights: str = ""
    classes: str = ""

    @classmethod
    def of(cls, model: Mapping[str, Any], note: str = "", class_names: Sequence[str] = ()) -> ModelIdentity:
        """Return the identity of ``model``: its ``name``, ``version`` and ``sha256``, as far as they are known."""
        name, version = (str(model.get(key) or default)[:LONGEST] for key, default in DEFAULTS.items())
        return cls(name, version, note, str(model.get("sha256") or ""), ", ".join(quote_names(class_names)))

    def parameters(self) -> dict[str, str]:
        """Return what is known of the model beside its name and version."""
        stated = {"model": self.note, "weights SHA-256": self.weights, "classes": self.classes}
        return {key: text for key, text in stated.items() if text}

    def software(self) -> list[str]:
        """Return the version of this library, and the model with its own."""
        library = import_module(MANUFACTURER).__version__  # by name, since it is above this module
        return [library, f"{self.name} {self.version}"[:LONGEST]]

    def for_segment(self) -> Any:
        """Return the identity as a macro of a segment."""
        parameters = self.parameters() or None
        return hd.AlgorithmIdentificationSequence(self.name, _family(), self.version, MANUFACTURER, parameters)

    def for_report(self) -> Any:
        """Return the identity as items of a report (TID 4019)."""
        parameters = [f"{key}: {text}" for key, text in self.parameters().items()]
        return hd.sr.AlgorithmIdentification(self.name, self.version, parameters or None, _family(), MANUFACTURER)


def _family() -> Any:
    return hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")


def class_code(name: str) -> Any:
    """Return the code of a class: a hash, since the value of a code has 16 characters and no meaning of its own."""
    return hd.sr.CodedConcept(sha256(name.encode()).hexdigest()[:16], SCHEME, name[:LONGEST])
