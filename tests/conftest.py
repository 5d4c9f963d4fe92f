"""Fixtures: a small generated data set, the real data if it is available, and a clean environment."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from camlab.data.image_set import ImageSet
from camlab.data.module import ImageData


class Coloured(ImageData):
    """Images of noise in a colour of their class, which are learnable in a few steps; with masks if asked for."""

    def __init__(self, n_train: int = 64, n_test: int = 24, num_classes: int = 4, masks: bool = False, **options: Any):
        super().__init__(**{"image_size": 64, "val_size": 16, "batch_size": 16, **options})
        self.n_train, self.n_test, self.num_classes, self.masks = n_train, n_test, num_classes, masks

    def load(self) -> tuple[ImageSet, ImageSet]:
        return self._draw(self.n_train, 1), self._draw(self.n_test, 2)

    def _draw(self, n: int, seed: int) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % self.num_classes
        colours = torch.randint(0, 256, (self.num_classes, 3, 1, 1), generator=torch.Generator().manual_seed(0))
        noise = torch.randint(-40, 41, (n, 3, 32, 32), generator=generator)
        images = (colours[labels] + noise).clamp(0, 255).to(torch.uint8)
        masks = torch.zeros(n, 32, 32, dtype=torch.bool)
        masks[:, 8:16, 8:16] = True
        names = tuple(f"class{k}" for k in range(self.num_classes))
        return ImageSet(images, labels, names, masks if self.masks else None)


@pytest.fixture
def shared_data() -> Path:
    """The folder with real data and weights; tests that need it are skipped if it is not set."""
    if not (folder := os.environ.get("CAMLAB_SHARED_DATA")):
        pytest.skip("CAMLAB_SHARED_DATA is not set: no real data and weights here")
    return Path(folder)


@pytest.fixture(autouse=True)
def quiet_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test without a W&B account, with a home folder of its own, and with a fixed random state."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.manual_seed(0)
