"""What this bundle adds to the package: its demo data, its frozen encoder and how it cuts scans into bags."""
