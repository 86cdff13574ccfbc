"""Search of settings on a cohort of labeled scans: ``scripts/reproduce ct_protocol`` and ``report``."""

__all__: list[str] = []
