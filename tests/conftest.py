"""Fixtures: a small generated data set, the real data if it is available, and a clean environment."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra._internal.hydra import Hydra
from hydra.types import RunMode

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


@pytest.fixture(autouse=True, scope="session")
def quick_commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Save what commands in tests would do again and again.

    Hydra composes the settings twice, the first time only to see whether they ask for a sweep, which no test does in a
    file. The files in `conf/` are parsed for each command. Matplotlib lists all fonts when it is first imported in a new
    home folder.
    """
    parse, known = yaml.load, {}

    def parse_once(stream: Any, Loader: Any) -> Any:  # its second parameter is given by name
        if not hasattr(stream, "seek"):
            return parse(stream, Loader)
        start, text = stream.tell(), stream.read()
        key = (Loader.__qualname__, text)
        if key not in known:
            stream.seek(start)
            known[key] = parse(stream, Loader)
        return copy.deepcopy(known[key])

    def asked_mode(hydra: Hydra, config_name: str, overrides: list[str]) -> RunMode | None:
        return RunMode.MULTIRUN if "hydra.mode=MULTIRUN" in overrides else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", asked_mode)
        patch.setattr(yaml, "load", parse_once)
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        yield


@pytest.fixture(autouse=True)
def quiet_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test without a W&B account, with a home folder of its own, and with a fixed random state."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.manual_seed(0)
