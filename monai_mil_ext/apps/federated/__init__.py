"""Federated training of the bundles with NVIDIA FLARE; ``nvflare`` is needed only to run it."""

from .federated_site import FederatedSite
from .flare_job import CLASS_ALLOW_LIST, federated_job
from .global_model import GlobalModelSaver
from .site_executor import SiteExecutor

__all__ = ["CLASS_ALLOW_LIST", "FederatedSite", "GlobalModelSaver", "SiteExecutor", "federated_job"]
