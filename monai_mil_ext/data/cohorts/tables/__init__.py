"""Tables of a cohort: which column holds what, and the task of the labels."""

__all__: list[str] = []
