"""Stands in for pydicom_seg, which needs pydicom 2: monailabel imports it, and uses it to write DICOM SEG only."""
