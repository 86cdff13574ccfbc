"""Handler that uploads the folders of a training to an object store."""

from __future__ import annotations

from collections.abc import Sequence

from ignite.engine import Engine, Events

from monai_mil_ext.utils.remote import WorkFolder

__all__ = ["FolderUploader"]


class FolderUploader:
    """Handler that uploads what an epoch has changed in the folders of a training, if they have an address.

    Attach it to the trainer after all handlers that write files, in the first process of a distributed run. A training
    that was killed then goes on from the last epoch that was uploaded, on any machine.

    Args:
        folders: folders of weights, checkpoints and logs; a local one is left as it is.

    Raises:
        StoreError: in a run, when the store refuses or does not answer.

    Example:
        >>> saved = WorkFolder("memory://bucket/model")
        >>> trainer = Engine(lambda engine, batch: (saved.path / "model.pt").write_text(f"epoch {engine.state.epoch}"))
        >>> FolderUploader([saved]).attach(trainer)
        >>> _ = trainer.run([0], max_epochs=2)
        >>> (saved.address / "model.pt").read_text()
        'epoch 2'
    """

    def __init__(self, folders: Sequence[WorkFolder]) -> None:
        self.folders = list(folders)

    def attach(self, engine: Engine) -> None:
        """Upload after every epoch of ``engine``, and at its end."""
        engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self._push)

    def _push(self) -> None:
        for folder in self.folders:
            folder.push()
