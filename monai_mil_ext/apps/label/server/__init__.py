"""Safety of the MONAI Label server: requests of clients, labels that last, and processes that end with it."""

from .archive_store import ArchiveStore
from .label_store import LabelStore
from .label_table import LabelTable
from .request_guard import RequestGuard
from .request_rules import Refusal, RequestRules
from .safe_app import SafeApp
from .sign_in import accept_signed_tokens
from .task_process import exit_with_parent
from .uploaded_archives import UploadSessions

__all__ = [
    "ArchiveStore",
    "LabelStore",
    "LabelTable",
    "Refusal",
    "RequestGuard",
    "RequestRules",
    "SafeApp",
    "UploadSessions",
    "accept_signed_tokens",
    "exit_with_parent",
]
