"""`camlab.HeatmapCallback` in Trainers and modules that know nothing of camlab."""

import functools
import json
import logging
import os
import random
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import Compose, Normalize, ToTensor

import camlab
from camlab.data.any_batch import images_and_labels
from camlab.drawing.maps_file import read_maps
from camlab.errors import UserError
from camlab.training.probe_set import checked_labels, pictures_of

CLASSES = 4


def convolutions(channels: int = 3, classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


class Module(L.LightningModule):
    """A classifier as many people write it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), batch_size=4)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)


class OfDicts(Module):
    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch["pixel_values"]), batch["labels"])


class OfSeveralClasses(Module):
    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.binary_cross_entropy_with_logits(self(x), y)


class Transfer(Module):
    """A frozen network of torchvision's with a new head, and no `forward` of its own."""

    def __init__(self) -> None:
        net = torchvision.models.shufflenet_v2_x0_5(weights=None).requires_grad_(False)
        net.fc = nn.Linear(1024, CLASSES)
        super().__init__(net)
        self.criterion = nn.CrossEntropyLoss()

    forward = L.LightningModule.forward

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return self.criterion(self.net(x), y)


class Boring(BoringModel):
    """Lightning's own demo, with a network that sees pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = convolutions(classes=2)


def pictures(n: int = 8, channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def loader(*tensors: Tensor, keys: tuple[str, ...] = (), size: int = 4) -> DataLoader:
    rows: Any = list(zip(*tensors, strict=True))
    if keys:
        rows = [dict(zip(keys, row, strict=True)) for row in rows]
    elif len(tensors) == 1:
        rows = list(tensors[0])
    return DataLoader(rows, batch_size=size)


def tuples(**options: int) -> DataLoader:
    images = pictures(**options)
    return loader(images, torch.arange(len(images)) % CLASSES)


def fit(
    module: L.LightningModule,
    data: Any,
    folder: Path,
    *callbacks: L.Callback,
    val: bool = True,
    logger: Any = False,
    max_epochs: int = 1,
    **options: Any,
) -> L.Trainer:
    run = L.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=logger,
        callbacks=list(callbacks),
        default_root_dir=str(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **({} if val else {"limit_val_batches": 0}),
        **options,
    )
    run.fit(module, data, data)
    return run


def drawn(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("heatmaps/epoch_*/maps.npz"))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [record for record in caplog.records if record.name.startswith("camlab")]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def vit() -> nn.Module:
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(network.heads.head.weight)  # torchvision starts with zeros
    return network


MODULES = {
    "tuple": (lambda: Module(convolutions()), tuples),
    "dict": (
        lambda: OfDicts(convolutions()),
        lambda: loader(pictures(), torch.arange(8) % CLASSES, keys=("pixel_values", "labels")),
    ),
    "several classes": (
        lambda: OfSeveralClasses(convolutions()),
        lambda: loader(pictures(), (torch.arange(32).reshape(8, CLASSES) % 3 == 0).float()),
    ),
    "one output": (
        lambda: OfSeveralClasses(convolutions(classes=1)),
        lambda: loader(pictures(), (torch.arange(8)[:, None] % 2).float()),
    ),
    "transfer": (Transfer, lambda: tuples(side=64)),
    "transformer": (lambda: Module(vit()), tuples),
    "Lightning's demo": (Boring, lambda: loader(pictures())),
}


@pytest.mark.parametrize("name", MODULES)
def test_it_draws_and_training_ends_in_the_same_bits(tmp_path, caplog, name):
    make, data = MODULES[name]
    ends = []
    for callbacks in ([], [camlab.HeatmapCallback()]):
        L.seed_everything(3, verbose=False)
        module = make()
        fit(module, data(), tmp_path, *callbacks, max_epochs=2, accumulate_grad_batches=2)
        rng = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
        ends.append((module.state_dict(), rng, [m.training for m in module.modules()]))
    (bare, *others), (watched, *others_watched) = ends
    assert all(torch.equal(bare[key], watched[key]) for key in bare)
    assert others == others_watched
    assert drawn(tmp_path) == ["epoch_0000", "epoch_0001", "epoch_0002"]
    assert "No heatmaps" not in caplog.text
    maps = read_maps(tmp_path / "heatmaps" / "epoch_0002" / "maps.npz")
    assert len(maps.files) == 4, "the pictures of the first batch"
    assert list(maps.maps) == ["attention_relevance" if name == "transformer" else "cam"]
    first = {"transformer": 0, "Lightning's demo": None, "several classes": None, "one output": None}.get(name, 0)
    assert (None if maps.labels is None else maps.labels[0]) == first
    layer = {"transfer": "conv5", "transformer": None}.get(name, "5")
    assert layer is None or maps.layers["cam"] == (layer,), "named as in the network itself"


def test_a_head_of_zeros_does_not_decide_the_method(tmp_path, caplog):
    """torchvision's transformers start with a head of zeros, which passes no gradients on before it is trained."""
    module = Module(torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES))
    fit(module, tuples(), tmp_path, camlab.HeatmapCallback(), max_epochs=2)
    assert "No heatmaps at epoch 0" in caplog.text
    assert "all gradients are zero" in caplog.text
    assert list(read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").maps) == ["attention_relevance"]


# ---- where the pictures come from


class Pair(NamedTuple):
    features: Tensor
    target: Tensor


@dataclass
class Item:
    img: Tensor
    meta: dict[str, Any]
    y: list[int]


@pytest.mark.parametrize(
    "batch",
    [
        [pictures(2), torch.tensor([0, 1])],
        (pictures(2), (torch.tensor([0, 1]), torch.zeros(2, 4, 4, 4))),
        {"image": pictures(2), "idx": torch.tensor([7, 8]), "label": torch.tensor([0, 1])},
        {"id": ["a", "b"], "whatever": pictures(2), "target": torch.tensor([0, 1])},
        Pair(pictures(2), torch.tensor([0, 1])),
        Item(pictures(2), {"path": "x"}, [0, 1]),
        ({"x": pictures(2)}, torch.tensor([0, 1])),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_batches_of_any_form(batch):
    images, labels = images_and_labels(batch)
    assert torch.equal(images, pictures(2))
    assert labels.tolist() == [0, 1]


def test_an_index_beside_the_label_is_not_taken_for_it(caplog):
    images, labels = images_and_labels((pictures(2), torch.tensor([0, 1]), torch.tensor([3, 2])))
    assert images.shape == (2, 3, 32, 32)
    assert labels is None
    assert "The batch has 2 values that may be labels" in caplog.text


def test_a_function_reads_odd_batches():
    batch = "a", {"views": [pictures(2, side=8), pictures(2)]}
    images, labels = images_and_labels(batch, lambda batch: batch[1]["views"][1])
    assert images.shape[-1] == 32
    assert labels is None
    with pytest.raises(UserError, match=r"^The batch has no images N×C×H×W: tuple of a tensor 4×7\. Give read_batch="):
        images_and_labels((torch.zeros(4, 7),))


def test_pictures_are_shown_and_not_their_normalised_form(tmp_path):
    class Photos(Dataset):
        classes = ("ant", "bee", "cow", "dog")
        transform = None

        def __init__(self) -> None:
            generator = np.random.default_rng(0)
            self.photos = [generator.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
            self.transform = Compose([ToTensor(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])

        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return self.transform(self.photos[i]), i

    data = Photos()
    fit(
        Module(convolutions()),
        DataLoader(Subset(data, range(4)), 4),
        tmp_path,
        camlab.HeatmapCallback(),
    )
    for i, photo in enumerate(data.photos):
        assert np.array_equal(np.array(Image.open(tmp_path / "heatmaps" / "pictures" / f"{i:02d}.png")), photo)
    assert read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").class_names == ["ant", "bee", "cow", "dog"]


@pytest.mark.parametrize(
    ("inputs", "given", "found", "shown"),
    [
        ([0.0, 0.5, 1.0], None, ((0.5,), (0.5,)), [0, 128, 255]),  # as they are
        ([0.0, 51.0, 255.0], None, None, [0, 51, 255]),
        ([-1.0, 0.0, 1.0], None, ((0.5,), (0.5,)), [0, 128, 255]),
        ([-1.0, 0.0, 3.0], None, ((0.5,), (0.5,)), [0, 64, 255]),  # what was found makes no sense: stretched
        ([-1.0, 0.0, 3.0], ((0.5,), (0.5,)), None, [0, 128, 255]),
    ],
)
def test_values_of_pictures(inputs, given, found, shown):
    drawn = pictures_of(torch.tensor(inputs).expand(1, 3, 1, 3), given, found)
    assert drawn[0, 0, 0].tolist() == shown


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_numbers_of_channels(tmp_path, caplog, channels):
    caplog.set_level(logging.INFO)
    fit(
        Module(convolutions(channels)), tuples(channels=channels, n=4), tmp_path, camlab.HeatmapCallback(), max_epochs=1
    )
    assert drawn(tmp_path) == ["epoch_0000", "epoch_0001"]
    assert (f"Of the {channels} channels" in caplog.text) == (channels > 1)


def test_images_that_are_given_with_labels_and_names(tmp_path):
    callback = camlab.HeatmapCallback(
        pictures(3), [1, 0, 2], ["ant", "bee", "cow"], methods=["grad_cam", "cam"], top_k=2, every_n_epochs=2
    )
    fit(Module(convolutions()), tuples(n=4), tmp_path, callback, val=False, max_epochs=3)
    assert drawn(tmp_path) == ["epoch_0000", "epoch_0002", "epoch_0003"]
    maps = read_maps(tmp_path / "heatmaps" / "epoch_0003" / "maps.npz")
    assert maps.class_names == ["ant", "bee", "cow", "output 3"]
    assert maps.labels.tolist() == [1, 0, 2]
    assert maps.class_idx.shape == (3, 3), "the two best classes and the true one"
    assert list(maps.maps) == ["grad_cam", "cam"]


def test_a_folder_of_pictures(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (90, 60), (9, 99, 9)).save(folder / "a.jpg")
    callback = camlab.HeatmapCallback(folder, mean=0.5, std=[0.5, 0.25, 0.5])
    fit(Module(convolutions()), tuples(), tmp_path, callback, max_epochs=1)
    assert drawn(tmp_path) == ["epoch_0000", "epoch_0001"]
    assert read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").names == ["a.jpg"]
    green = callback._inputs[0].mean(dim=(1, 2))
    torch.testing.assert_close(green, torch.tensor([-0.93, -0.447, -0.93]), atol=0.05, rtol=0)


def test_without_validation_the_first_training_batch_is_drawn(tmp_path):
    fit(Module(convolutions()), tuples(), tmp_path, camlab.HeatmapCallback(num_images=2), val=False, max_epochs=2)
    assert drawn(tmp_path) == ["epoch_0001", "epoch_0002"], "before training there are no pictures yet"
    assert len(read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").files) == 2


def test_several_true_classes(tmp_path):
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).float()
    callback = camlab.HeatmapCallback(pictures(3), labels, ["ant", "bee", "cow", "dog"])
    fit(OfSeveralClasses(convolutions()), loader(pictures(), torch.ones(8, 4)), tmp_path, callback, max_epochs=1)
    maps = read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz")
    assert maps.names == ["true ant, cow", "true none", "true ant, bee, cow, … (4 in all)"]
    assert maps.class_idx.shape == (3, 1 + 3)
    assert set(maps.class_idx[0, 1:3].tolist()) == {0, 2}
    assert set(maps.class_idx[1].tolist()) == {int(maps.probabilities[1].argmax())}
    assert maps.probabilities.sum(axis=1).max() > 1.01, "sigmoids, and no softmax"


def test_forms_of_labels():
    assert checked_labels(torch.tensor([[2], [0]]), 3)[0].tolist() == [2, 0]
    one_hot = F.one_hot(torch.tensor([2, 0]), 3)
    assert checked_labels(one_hot, 3) == (pytest.approx(torch.tensor([2, 0])), False)
    assert checked_labels(torch.tensor([1.0, 0.0]), 1)[0].tolist() == [[1], [0]]


# ---- networks in modules, precisions, wrappers


class TwoParts(Module):
    def __init__(self) -> None:
        super().__init__(convolutions())
        self.teacher = convolutions()

    forward = L.LightningModule.forward

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)


def test_the_network_is_named_where_it_cannot_be_found(tmp_path, caplog):
    run = fit(TwoParts(), tuples(), tmp_path, camlab.HeatmapCallback(), max_epochs=2)
    assert run.state.finished
    assert warnings_of(caplog) == [
        "No heatmaps: TwoParts has no forward. Give model=NAME, the part that maps images to logits: net, teacher, or"
        " one inside them; training continues."
    ]
    fit(TwoParts(), tuples(), tmp_path, camlab.HeatmapCallback(model="teacher"))
    assert drawn(tmp_path) == ["epoch_0000", "epoch_0001"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(tmp_path, caplog, precision):
    fit(Module(convolutions()), tuples(), tmp_path, camlab.HeatmapCallback(pictures(2)), precision=precision)
    assert warnings_of(caplog) == []
    assert drawn(tmp_path) == ["epoch_0000", "epoch_0001"]


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["the network", "the module"])
def test_compiled_networks(tmp_path, caplog, wrapped):
    compiled = {"backend": "eager"}
    module = Module(torch.compile(convolutions(), **compiled) if wrapped == "the network" else convolutions())
    whole = torch.compile(module, **compiled) if wrapped == "the module" else module
    fit(whole, tuples(), tmp_path, camlab.HeatmapCallback())
    assert warnings_of(caplog) == []
    assert read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").layers == {"cam": ("5",)}


class Restless(nn.Module):
    """Draws random numbers and counts its passes even in eval mode, in place and by assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.seen = self.seen + len(x)
        return self.net(x + 1e-3 * torch.randn_like(x))


def test_a_network_that_changes_in_every_pass_is_as_it_was(tmp_path):
    ends = []
    for callbacks in ([], [camlab.HeatmapCallback()]):
        L.seed_everything(3, verbose=False)
        module = Module(Restless())
        fit(module, tuples(), tmp_path, *callbacks, max_epochs=2)
        ends.append(module.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_buffer_without_a_shape_does_not_stop_training(tmp_path, caplog):
    lazy = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LazyBatchNorm2d(affine=False), convolutions(8))
    assert fit(Module(lazy), tuples(), tmp_path, camlab.HeatmapCallback(pictures(2)), val=False).state.finished
    assert warnings_of(caplog) == ["No heatmaps at epoch 0: drawing failed; training continues."]
    assert drawn(tmp_path) == ["epoch_0001"]


def test_one_callback_in_two_trainings(tmp_path):
    callback = camlab.HeatmapCallback()
    fit(Module(convolutions()), tuples(), tmp_path / "a", callback)
    fit(Module(convolutions(1)), tuples(channels=1), tmp_path / "b", callback)
    assert drawn(tmp_path / "b") == ["epoch_0000", "epoch_0001"]


class WithoutForward(Module):
    """Networks in a dict; the step runs one of them."""

    forward = L.LightningModule.forward

    def __init__(self, *names: str) -> None:
        super().__init__(nn.ModuleDict({name: convolutions() for name in names}))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net["student"](x), y)


def test_networks_in_a_dict(tmp_path, caplog):
    fit(WithoutForward("student"), tuples(), tmp_path / "one", camlab.HeatmapCallback())
    named = camlab.HeatmapCallback(model="net.student")
    fit(WithoutForward("student", "teacher"), tuples(), tmp_path / "named", named)
    assert warnings_of(caplog) == []
    assert drawn(tmp_path / "one") == drawn(tmp_path / "named") == ["epoch_0000", "epoch_0001"]
    fit(WithoutForward("student", "teacher"), tuples(), tmp_path / "two", camlab.HeatmapCallback())
    assert warnings_of(caplog) == [
        "No heatmaps: WithoutForward has no forward. Give model=NAME, the part that maps images to logits: net.student,"
        " net.teacher, or one inside them; training continues."
    ]


# ---- loggers


def test_tensorboard_gets_the_pictures(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    fit(Module(convolutions()), tuples(), tmp_path, camlab.HeatmapCallback(), logger=logger)
    events = event_accumulator.EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == [f"heatmaps/probe/{i:02d}" for i in range(4)]
    assert [image.step for image in events.Images("heatmaps/probe/03")] == [0, 1]
    assert drawn(Path(logger.log_dir)) == ["epoch_0000", "epoch_0001"], "files of a run lie where its metrics lie"


@pytest.mark.slow
def test_wandb_gets_the_pictures(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    fit(Module(convolutions()), tuples(), tmp_path, camlab.HeatmapCallback(), logger=logger)
    logger.experiment.finish()
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert len(list(folder.glob("files/media/images/heatmaps/*.jpg"))) == 8
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    history = [record["history"]["item"] for record in found if record["type"] == "history"]
    assert [item["heatmaps/epochs_done"] for item in history if "heatmaps/probe.captions" in item] == [0, 1]


class Recorder:
    """Stands for the client of a logger that is not installed here: it records calls."""

    def __init__(self, *path: str) -> None:
        self.path, self.calls = path, []

    def __getitem__(self, key: str) -> "Recorder":
        inner = Recorder(*self.path, key)
        inner.calls = self.calls
        return inner

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append((*self.path, name, args, kwargs))


class Foreign(DummyLogger):
    run_id = "7"
    save_dir = None
    name = None
    version = None

    def __init__(self) -> None:
        super().__init__()
        self._experiment = Recorder()


class OfMLflow(Foreign): ...


OfMLflow.__name__ = "MLFlowLogger"


class CometLogger(Foreign): ...


class NeptuneLogger(Foreign): ...


def test_loggers_that_are_not_installed_here(tmp_path):
    loggers = [OfMLflow(), CometLogger(), NeptuneLogger(), Foreign()]
    callback = camlab.HeatmapCallback(num_images=1, folder=tmp_path / "drawn")
    fit(Module(convolutions()), tuples(), tmp_path, callback, logger=loggers)
    mlflow, comet, neptune, unknown = (logger.experiment.calls for logger in loggers)
    name = "heatmaps/probe/00"
    assert [(call, args[0], options) for call, args, options in mlflow] == [
        ("log_image", "7", {"key": name, "step": epoch}) for epoch in (0, 1)
    ]
    assert [(call, options["name"], options["step"], options["image_minmax"]) for call, _, options in comet] == [
        ("log_image", name, epoch, (0, 255)) for epoch in (0, 1)
    ]
    assert [(key, call, options["step"]) for key, call, _, options in neptune] == [
        (name, "append", epoch) for epoch in (0, 1)
    ]
    assert unknown == []


@pytest.mark.slow
def test_mlflow_gets_the_pictures(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(action="ignore"):  # those of MLflow's own dependencies
        logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/runs.db", artifact_location=str(tmp_path / "kept"))
        fit(Module(convolutions()), tuples(), tmp_path, camlab.HeatmapCallback(num_images=2), logger=logger)
        client = mlflow.MlflowClient(logger._tracking_uri)
        kept = [file.path for file in client.list_artifacts(logger.run_id, "images")]
    found = [re.match(r"images/heatmaps\Wprobe\W(\d\d)\Wstep\W(\d+)\W.*\.png$", path) for path in kept]
    numbers = sorted(match.groups() for match in found if match)
    assert numbers == [("00", "0"), ("00", "1"), ("01", "0"), ("01", "1")], "picture and step"
    drawn_there = tmp_path / logger.name / logger.version / "heatmaps" / "epoch_0001" / "00.jpg"
    assert drawn_there.is_file(), "files of a run lie in a folder of its own"


@pytest.mark.parametrize(
    ("logger", "folder"),
    [
        (lambda where: CSVLogger(where, name=None), "version_0"),
        (lambda where: CSVLogger(where, name="a", version="b"), "a/b"),
        (lambda where: TensorBoardLogger(where, name="a", version=3, sub_dir="fold1"), "a/version_3/fold1"),
        (lambda where: CometLogger(), ""),
        (lambda where: False, ""),
    ],
    ids=["no name", "version", "sub_dir", "online", "no logger"],
)
def test_files_lie_where_the_first_logger_writes(tmp_path, logger, folder):
    fit(Module(convolutions()), tuples(n=4), tmp_path, camlab.HeatmapCallback(num_images=1), logger=logger(tmp_path))
    assert drawn(tmp_path / folder) == ["epoch_0000", "epoch_0001"]


class Broken(CometLogger):
    @property
    def experiment(self) -> Any:
        return object()


def test_a_logger_that_fails_is_told_once_and_the_others_get_the_pictures(tmp_path, caplog):
    loggers = [Broken(), CometLogger()]
    callback = camlab.HeatmapCallback(folder=tmp_path)
    fit(Module(convolutions()), tuples(), tmp_path, callback, logger=loggers, max_epochs=3)
    assert warnings_of(caplog) == ["No heatmaps in Broken: drawing failed; training continues."]
    assert len(loggers[1].experiment.calls) == 4 * 4


# ---- bad input


@pytest.mark.parametrize(
    ("make", "data", "options", "told"),
    [
        (
            lambda: Module(convolutions()),
            tuples,
            {"images": pictures(2, channels=1)},
            r"No heatmaps: images: the network cannot take float32 images of 1×32×32: .*\. Give images like those of its"
            r" batches, or model=NAME, .*",
        ),
        (
            lambda: Module(convolutions()),
            tuples,
            {"images": pictures(2), "labels": [0, 4]},
            r"No true classes in heatmaps: labels: 4 is no class of the network, which has the classes 0 to 3",
        ),
        (
            lambda: Module(convolutions()),
            tuples,
            {"images": pictures(2), "class_names": list("abcde")},
            r"No heatmaps: class_names: 5 names, but the network has 4 outputs\. Leave some out",
        ),
        (
            lambda: Module(convolutions()),
            tuples,
            {"images": pictures(2), "mean": [0.1, 0.2], "std": 1.0},
            r"No heatmaps: mean, std: the images have 3 channels\. Give one number for each, or one for all",
        ),
        (
            lambda: Module(convolutions()),
            tuples,
            {"model": "nett"},
            r"No heatmaps: model=nett: Module has no such part\. Did you mean net\? Give model=NAME, .*",
        ),
        (
            lambda: Module(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, CLASSES))),
            tuples,
            {},
            r"No heatmaps at epoch 0: The network has no layer with a spatial output .*",
        ),
        (
            BoringModel,
            lambda: loader(torch.zeros(8, 32)),
            {},
            r"No heatmaps: The batch has no images N×C×H×W: a tensor 4×32\. Give read_batch=FUNCTION, .*",
        ),
        (
            lambda: Module(convolutions()),
            tuples,
            {"read_batch": lambda batch: batch["x"]},
            r"No heatmaps: drawing failed",
        ),
        (
            lambda: Module(nn.Conv2d(3, 4, 3)),
            lambda: loader(pictures(), torch.zeros(8, 30, 30).long()),
            {},
            r"No heatmaps: The network gives float32 1×4×30×30 instead of N×M logits; it looks like a segmenter.*",
        ),
    ],
    ids=["channels", "labels", "names", "mean", "model", "no space", "no images", "reader", "segmenter"],
)
def test_mistakes_are_told_once_and_training_goes_on(tmp_path, caplog, make, data, options, told):
    run = fit(make(), data(), tmp_path, camlab.HeatmapCallback(**options), max_epochs=3)
    assert run.state.finished
    assert run.current_epoch == 3
    (line,) = warnings_of(caplog)
    assert re.fullmatch(told + "; training continues.", line)
    assert bool(drawn(tmp_path)) == ("true classes" in told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"images": pictures(2)[0]},
            "images: got float32 3×32×32, but N×C×H×W is needed. For one image, give images[None].",
        ),
        ({"images": 3}, "images: got int, but a tensor N×C×H×W is needed."),
        ({"images": "/nowhere"}, "images=/nowhere: no pictures there. Give another folder."),
        ({"images": pictures(2), "labels": [1]}, "labels: 1 labels for 2 images. Give one for each."),
        ({"labels": [1]}, "labels: they are given without images. Give both, or neither."),
        ({"methods": "gradcam"}, "method=gradcam: unknown method. Did you mean grad_cam?"),
        ({"every_n_epochs": 0}, "every_n_epochs=0: must be a whole number, at least 1."),
        ({"colormap": "red"}, "colormap=red: unknown colour map. Choose from jet,"),
        ({"normalize": "max"}, "normalize=max: unknown scaling. Choose from per_image, shared, raw."),
        ({"alpha": 2}, "alpha=2: must be a number from 0 to 1."),
        ({"mean": 0.5}, "mean, std: one of them is missing. Give both."),
        ({"mean": 0.5, "std": 0}, "std=(0.0,): must be numbers above 0."),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(options, told):
    with pytest.raises(UserError) as error:
        camlab.HeatmapCallback(**options)
    assert str(error.value).startswith(told)


def test_files_that_cannot_be_written_do_not_stop_training(tmp_path, caplog):
    (tmp_path / "heatmaps").write_text("a file where a folder should be")
    assert fit(Module(convolutions()), tuples(), tmp_path, camlab.HeatmapCallback()).state.finished
    (told,) = warnings_of(caplog)  # once, although each epoch fails
    assert "[Errno" in told


class OfTuples(Module):
    """A network that gives features and logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net[:-1](x)
        return features, self.net[-1](features)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch[0])[1], batch[1])


def test_the_logits_of_an_odd_output_are_named(tmp_path, caplog):
    fit(OfTuples(convolutions()), tuples(), tmp_path / "named", camlab.HeatmapCallback(output=1, methods="grad_cam"))
    assert warnings_of(caplog) == []
    assert len(list(tmp_path.glob("named/**/maps.npz"))) == 2
    fit(OfTuples(convolutions()), tuples(), tmp_path / "not", camlab.HeatmapCallback())
    (told,) = warnings_of(caplog)
    assert "instead of N×M logits" in told


# ---- networks of others, and the README


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_fine_tuning_of_timm(tmp_path, caplog, name):
    timm = pytest.importorskip("timm")
    size = {"img_size": 32, "patch_size": 8, "depth": 2} if name.startswith("vit") else {}
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=CLASSES, **size)
    fit(Module(network), tuples(n=4, side=32 if size else 96), tmp_path, camlab.HeatmapCallback())
    assert warnings_of(caplog) == []
    method = "attention_relevance" if size else "cam"
    assert list(read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").maps) == [method]


class OfHuggingFace(Module):
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        return self.net(pixel_values=pixel_values, labels=labels)

    def loss(self, batch: Any) -> Tensor:
        return self(**batch).loss


def test_an_image_classifier_of_hugging_face(tmp_path, caplog):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        id2label={0: "ant", 1: "bee", 2: "cow", 3: "dog"}, label2id={"ant": 0, "bee": 1, "cow": 2, "dog": 3},
    )  # fmt: skip
    module = OfHuggingFace(transformers.ViTForImageClassification(config))
    data = loader(pictures(), torch.arange(8) % CLASSES, keys=("pixel_values", "labels"))
    fit(module, data, tmp_path, camlab.HeatmapCallback())
    assert warnings_of(caplog) == []
    maps = read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz")
    assert list(maps.maps) == ["attention_relevance"]
    assert maps.class_names == ["ant", "bee", "cow", "dog"]


def blocks() -> list[str]:
    section = (Path(__file__).parents[1] / "README.md").read_text().split("## In your own training")[1]
    return re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)


def side_by_side(path: Path) -> tuple[int, int]:
    with Image.open(path) as drawn:
        return drawn.size


def test_the_lines_of_the_readme_for_lightning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1, "logger": False}
    monkeypatch.setattr(L, "Trainer", functools.partial(L.Trainer, accelerator="cpu", **quiet))
    exec(blocks()[0], {"module": Module(convolutions()), "train_loader": tuples(), "val_loader": tuples()})
    assert len(list(tmp_path.glob("heatmaps/epoch_*/sheet.png"))) == 3


def test_the_lines_of_the_readme_for_a_plain_loop(tmp_path):
    shown = np.zeros((8, 32, 32, 3), np.uint8)
    known = {"train": nn.Module.train, "model": convolutions(), "images": pictures()}
    exec(blocks()[1], {**known, "pictures": shown, "folder": tmp_path})
    assert side_by_side(tmp_path / "epoch_1.png") == (8 * 32, 32)


def weights_after_hugging_face(lines: str, folder: Path) -> dict[str, Tensor]:
    """Train with lines of the README, where `folder` is the folder of the pictures."""
    import transformers

    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=CLASSES,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    data = [{"pixel_values": image, "labels": i % CLASSES} for i, image in enumerate(pictures())]
    arguments = transformers.TrainingArguments(
        str(folder / "out"), num_train_epochs=2, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    known = {"model": model, "arguments": arguments, "data": data, "folder": folder, "pixel_values": pictures(3)}
    exec(lines, {**known, "pictures": np.zeros((3, 32, 32, 3), np.uint8)})
    return model.state_dict()


@pytest.mark.slow
def test_the_lines_of_the_readme_for_hugging_face(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed, which the Trainer of transformers needs")
    lines = blocks()[2]
    watched = weights_after_hugging_face(lines, tmp_path)
    assert [side_by_side(tmp_path / f"epoch_{epoch}.png") for epoch in (1, 2)] == [(3 * 32, 32)] * 2
    bare = weights_after_hugging_face(lines.replace("callbacks=[Heatmaps()]", ""), tmp_path / "bare")
    assert not list((tmp_path / "bare").glob("*.png"))
    assert all(torch.equal(bare[key], watched[key]) for key in bare)


TWO_PROCESSES = """
import sys
from pathlib import Path

import torch
from test_any_trainer import Module, convolutions, fit, tuples

import camlab

torch.manual_seed(0)
module, callbacks = Module(convolutions()), [camlab.HeatmapCallback()] if sys.argv[2] == "drawn" else []
fit(module, tuples(), Path(sys.argv[1]), *callbacks, max_epochs=2, devices=2, strategy="ddp")
if module.global_rank == 0:
    torch.save(module.state_dict(), Path(sys.argv[1], "weights.pt"))
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    for name in ("bare", "drawn"):
        (tmp_path / name).mkdir()
        command = [sys.executable, str(script), str(tmp_path / name), name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        assert "No heatmaps" not in done.stderr
    bare, watched = (torch.load(tmp_path / name / "weights.pt") for name in ("bare", "drawn"))
    assert all(torch.equal(bare[key], watched[key]) for key in bare)
    assert drawn(tmp_path / "drawn") == ["epoch_0000", "epoch_0001", "epoch_0002"]
