"""Which checkpoints a run keeps."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback, ModelCheckpoint


def checkpoints(run_dir: Path, has_validation: bool) -> list[Callback]:
    """`last.ckpt` after every epoch and on interruption; `best.ckpt` by validation accuracy, where there is one."""
    folder = run_dir / "checkpoints"
    keep: list[Callback] = [
        ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_exception=True)
    ]
    if has_validation:
        keep.append(
            ModelCheckpoint(folder, filename="best", monitor="val/acc", mode="max", enable_version_counter=False)
        )
    return keep
