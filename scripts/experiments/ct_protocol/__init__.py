"""Search of settings on a cohort of scans with one label each: ``scripts/reproduce ct_protocol`` and ``report``."""

__all__: list[str] = []
