"""Life of the processes in which MONAI Label trains, scores and infers batches."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["exit_with_parent"]


def exit_with_parent(parent: int | None = None, seconds: float = 0.5) -> None:
    """End this process soon after its parent has ended, for example by ``kill -9``.

    A training would otherwise go on and replace the weights while the next server uses them.

    Args:
        parent: ID of the parent, which may have ended before this call; by default, the parent that there is now.
        seconds: time between two looks.
    """
    expected = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="exit_with_parent", daemon=True).start()
