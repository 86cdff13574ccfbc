"""Results of a scan as DICOM: content of each object, and an archive to send them to."""

__all__: list[str] = []
