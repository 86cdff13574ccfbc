"""Page on which a reader labels scans, trains, looks at answers and sends them to the archive."""

from .answer_sender import send_answer
from .labeller_page import Labeller, Reply, add_labeller
from .reader_log import ReaderLog
from .slice_picture import SlicePictures

__all__ = ["Labeller", "ReaderLog", "Reply", "SlicePictures", "add_labeller", "send_answer"]
