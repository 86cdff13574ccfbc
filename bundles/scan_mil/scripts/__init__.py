"""Demo data, frozen encoders and bags of scans of this bundle."""
