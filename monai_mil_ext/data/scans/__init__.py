"""3D scans: readers, annotations and result files."""

from .annotations import find_annotation, read_annotation_mask
from .dicom_series import find_series
from .dicom_writer import DicomWriter
from .nifti_writer import write_nifti
from .results.archive import DicomArchive, NotStoredError
from .results.scan_result import ScanResult
from .scan_header import ScanHeader, read_scan_header
from .scan_reader import ScanReader
from .score_bands import ScoreBands

__all__ = [
    "DicomArchive",
    "DicomWriter",
    "NotStoredError",
    "ScanHeader",
    "ScanReader",
    "ScanResult",
    "ScoreBands",
    "find_annotation",
    "find_series",
    "read_annotation_mask",
    "read_scan_header",
    "write_nifti",
]
