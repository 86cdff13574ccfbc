"""Scans of real heads with inserted lesions: anatomy from packages, exact truth, NIfTI files."""
