"""Public feature sets: download, cohort, study, and the published values beside it."""
