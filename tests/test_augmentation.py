"""Augmentation: a pure function of seed, epoch and image, each image by its own numbers; masks move along."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torchvision.transforms.functional as TF
from conftest import Coloured
from PIL import Image
from test_entries import command
from test_training import trainer, weights
from torch import Tensor, nn
from torch.nn import functional as F

from camlab import evaluate, train
from camlab.data import augment_numbers, recolouring
from camlab.data.augment_numbers import COLOURS, OPERATIONS, epoch_geometry
from camlab.data.augment_steps import PRESETS, steps_of
from camlab.data.augmentation import Augmentation, warp
from camlab.data.image_set import ImageSet
from camlab.data.loader import Batch, Loader, epoch_flips, epoch_shifts
from camlab.data.training_views import TrainingViews
from camlab.drawing.tiles import TILE_HEIGHT
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.runs import run_folder
from camlab.training import classifier as classifier_module
from camlab.training.callbacks.augmentation_sheet import AugmentationSheet, _of_different_classes
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.classifier import Classifier
from camlab.training.run import Run

N = 24
ALL = ["strong", "rotate", {"shift": 3}, {"color": {"strength": 0.5, "hue": 0.1}}, {"erase": 1}]


def augmentation(augment: Any, seed: int = 0, side: int = 24) -> Augmentation:
    return Augmentation(steps_of(augment), seed, side)


def pictures(n: int = N, side: int = 30) -> tuple[Tensor, Tensor]:
    """Pictures of noise that differ, and masks."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return images, torch.rand(n, side, side, generator=generator) < 0.3


def views_of(data: ImageSet, augment: Any = "strong", fixed: int | None = None) -> TrainingViews:
    return TrainingViews(augment, fixed, 0.5, 0, 0, Preprocess(data.images.shape[-1]))


# ---- the setting


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_lists_of_steps_and_later_entries_change_earlier_ones(preset):
    assert steps_of(preset) == steps_of([preset])
    changed = steps_of([preset, {"crop": 0.7}, {"crop": {"ratio": 2}}, {"flip": 1}], flip=0.25)
    assert changed["crop"] == {"scale": 0.7, "ratio": 2}
    assert changed["flip"] == {"p": 1}
    assert list(changed) == [name for name in ("flip", "crop", "color", "randaugment", "erase") if name in changed]


def test_null_stands_for_the_two_older_settings():
    assert steps_of(None, 0.25, 3) == {"flip": {"p": 0.25}, "shift": {"pixels": 3}}
    assert steps_of(None, 0.0, 0) == steps_of("none") == steps_of([]) == {}
    assert steps_of("flip", 0.25) == steps_of(None, 0.25)
    with pytest.raises(ValueError, match=r"give \{shift: 3\} in the list"):
        steps_of("standard", max_shift=3)


def test_flips_and_shifts_are_those_of_earlier_versions():
    images, _ = pictures()
    views = TrainingViews(None, None, 0.5, 3, 7, Preprocess(30))
    order = torch.randperm(N)
    batch = views.augmented(Batch(images[order], order, order, N), N, epoch=4)
    flipped, moved = epoch_flips(N, 0.5, 7, 4)[order], epoch_shifts(N, 3, 7, 4)[order]
    for image, i, is_flipped, (down, right) in zip(batch.images, order, flipped, moved, strict=True):
        expected = images[i].flip(-1) if is_flipped else images[i]
        rows, columns = ((torch.arange(30) - by).clamp(0, 29) for by in (down, right))
        assert torch.equal(image, expected[:, rows][:, :, columns])
    assert batch.own_share is None


def test_without_kornia_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.enhance", None)
    with pytest.raises(UserError, match=r"randaugment and color.hue need kornia\. Run: pip install camlab\[augment\]"):
        augmentation(["strong", {"color": {"hue": 0.1}}])
    assert augmentation(["standard", "rotate", "erase", "mixup"]).mixes


# ---- a pure function of seed, epoch and image


def test_an_image_is_augmented_alike_in_any_batch_and_order_and_anew_in_each_epoch():
    images, masks = pictures()
    augment, index = augmentation(ALL), torch.arange(N)
    whole, moved = augment(images, masks, index, N, epoch=3)
    assert whole.shape == (N, 3, 24, 24)
    assert moved is not None
    assert moved.shape == (N, 24, 24)
    again = augmentation(ALL)  # as in a resumed run, which has seen no earlier epoch
    for size in (1, 5, 16):
        for part in torch.randperm(N).split(size):
            own, own_masks = again(images[part], masks[part], part, N, epoch=3)
            assert torch.equal(own, whole[part])
            assert torch.equal(own_masks, moved[part])
    for other in (
        augment(images, masks, index, N, epoch=4)[0],
        augmentation(ALL, seed=1)(images, masks, index, N, 3)[0],
    ):
        assert all(not torch.equal(one, two) for one, two in zip(other, whole, strict=True))
    alike, _ = augment(images[:1].expand(N, -1, -1, -1), None, index, N, epoch=3)
    assert len(alike.flatten(1).unique(dim=0)) == N, "the same picture becomes another one at every place"


def test_ranks_mix_as_one_process_does_and_partners_follow_in_the_order():
    images, _ = pictures(22)
    data = ImageSet(images, torch.arange(22), tuple(map(str, range(22))))
    views = views_of(data, ["crop", "mixup", "cutmix"])

    def epoch(world_size: int) -> list[list[Batch]]:
        loaders = [Loader(data, 8, True, 0, rank, world_size, with_partner=True) for rank in range(world_size)]
        return [[views.augmented(share, 22, epoch=0) for share in shares] for shares in zip(*loaders, strict=True)]

    alone = [batch for (batch,) in epoch(1)]
    assert [len(batch.images) for batch in alone] == [batch.global_size for batch in alone] == [8, 8, 6]
    own, partners = (torch.cat([getattr(batch, name) for batch in alone]) for name in ("labels", "partner_labels"))
    assert torch.equal(partners, own.roll(-1)), "of the last image, the first is the partner"
    assert sorted(own.tolist()) == list(range(22))
    for together, single in zip(epoch(3), alone, strict=True):
        for name in ("images", "labels", "image_idx", "partner_labels", "own_share"):
            assert torch.equal(torch.cat([getattr(share, name) for share in together]), getattr(single, name))
    seen, _, mixed = views.examples(data, own[:8], epoch=0, order=own)
    assert torch.equal(seen, alone[0].images)
    assert [partner for partner, _ in mixed] == partners[:8].tolist()
    assert [share for _, share in mixed] == alone[0].own_share.tolist()


# ---- masks


def squares(n: int, side: int = 48) -> tuple[Tensor, Tensor]:
    """A bright square at another place in each picture, and its mask."""
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    for i, (top, left) in enumerate(torch.randint(4, side - 20, (n, 2)).tolist()):
        masks[i, top : top + 16, left : left + 12] = True
    return (masks[:, None] * 255).to(torch.uint8).expand(-1, 3, -1, -1), masks


@pytest.mark.parametrize("step", ["flip", {"shift": 9}, "crop", {"crop": 0.1}, {"rotate": 90}, "randaugment"])
@pytest.mark.parametrize("side", [48, 24])
def test_the_mask_of_a_bright_square_follows_the_square(step, side, monkeypatch):
    monkeypatch.setattr(recolouring, "COLOURS", ())  # which would make the square dark
    images, masks = squares(N)
    moved, own_masks = augmentation([step, {"flip": 0.5}], side=side)(images, masks, torch.arange(N), N, epoch=0)
    assert own_masks is not None
    bright = moved[:, 0] > 127
    assert own_masks.shape == bright.shape
    both, either = (part.flatten(1).sum(dim=1) for part in (bright & own_masks, bright | own_masks))
    assert (both >= 0.8 * either - 4).all()
    if side == 48:
        assert sum(not torch.equal(*pair) for pair in zip(own_masks, masks, strict=True)) > N // 3


def test_what_is_erased_or_replaced_is_not_in_the_mask():
    images, masks = torch.full((N, 3, 20, 20), 200, dtype=torch.uint8), torch.ones(N, 20, 20, dtype=torch.bool)
    erased, left = augmentation([{"erase": {"p": 1, "area": 0.4}}])(images, masks, torch.arange(N), N, epoch=0)
    assert torch.equal((erased == 200).all(dim=1), left)
    assert torch.equal((erased == 128).all(dim=1), ~left)
    assert 0.02 < (~left).float().mean() < 0.3
    mixed = augmentation([{"cutmix": 1}]).mix(images, masks, 0 * images, torch.arange(N), N, epoch=0)
    assert torch.equal((mixed.images == 200).all(dim=1), mixed.masks)
    torch.testing.assert_close(mixed.own_share, mixed.masks.flatten(1).float().mean(dim=1))
    assert mixed.own_share.min() >= 0.45


# ---- the steps


def test_a_crop_is_never_smaller_than_its_scale_whatever_the_ratio():
    for numbers_of in ({"scale": 0.5, "ratio": 4}, {"scale": 1, "ratio": 4}):
        maps = epoch_geometry(steps_of([{"crop": numbers_of}]), 500, 0, 0)
        width, height = maps[:, 0, 0], maps[:, 1, 1]
        assert (width * height).min() > numbers_of["scale"] - 1e-6
        assert max(width.max(), height.max()) < 1 + 1e-6


def test_crops_have_their_sizes_and_places_and_read_larger_pictures_without_aliasing():
    x = torch.arange(64.0)[None, None, None].expand(1000, 1, 64, 64)
    maps = augment_numbers.epoch_geometry(steps_of([{"crop": {"scale": 0.25, "ratio": 1.5}}]), 1000, 0, 0)
    width, height = maps[:, 0, 0], maps[:, 1, 1]
    assert (width * height).min() > 0.2
    assert abs((width * height).mean() - 0.625) < 0.05
    assert (width / height).min() > 1 / 1.51
    crops = warp(x, maps, (16, 16))
    left, right = crops[..., 0].mean(dim=(1, 2)), crops[..., -1].mean(dim=(1, 2))
    torch.testing.assert_close((right - left) / 15 * 16 / 64, width, atol=0.02, rtol=0)
    fine = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 1.0
    assert warp(fine[None, None], torch.eye(2, 3)[None], (16, 16)).sub(0.5).abs().max() < 1e-5, "grey, not stripes"


def test_colours_change_as_in_torchvision():
    images, _ = pictures(6, 20)
    floats = images / 255
    names = ("brightness", "contrast", "saturation")
    for column, name in enumerate(names):
        factors = torch.ones(6, 3)
        factors[:, column] = torch.linspace(0.4, 1.6, 6)
        changed = recolouring.adjust(floats, factors)
        for image, own, factor in zip(floats, changed, factors[:, column].tolist(), strict=True):
            assert (getattr(TF, f"adjust_{name}")(image, factor) - own).abs().max() < 2e-3, name
    turned = recolouring.turn_hue(floats, torch.full((6,), 0.2 * 2 * torch.pi))
    assert (TF.adjust_hue(floats, 0.2) - turned).abs().max() < 2e-3


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", COLOURS)
def test_operations_of_randaugment_are_torchvisions(name, sign):
    images, _ = pictures(2, 20)
    images = (images // 3 + 40).to(torch.uint8)
    operation = torch.tensor([[OPERATIONS.index(name)], [0]])
    changed = recolouring.apply_operations(images / 255, operation, torch.full((2, 1), sign), 15)
    factor = 1 + 0.9 * 0.5 * sign
    oracle = {
        "posterize": lambda image: TF.posterize(image, 6),
        "solarize": lambda image: TF.solarize(image, 127.5),
        "autocontrast": TF.autocontrast,
        "equalize": TF.equalize,
        "sharpness": lambda image: TF.adjust_sharpness(image, factor),
    }.get(name, lambda image: getattr(TF, f"adjust_{name}")(image, factor))
    difference = ((255 * changed[0]).round() - oracle(images[0]).float()).abs()
    assert difference.max() <= (8 if name == "equalize" else 1)
    assert torch.equal(changed[1], images[1] / 255), "each image has its own operation"


def test_mixup_gives_soft_labels_and_the_accuracy_is_that_of_the_own_label():
    images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 200.0)]).to(torch.uint8)[torch.arange(N) % 2]
    mixed = augmentation([{"mixup": 1}]).mix(images, None, images.roll(-1, 0), torch.arange(N), N, epoch=0)
    share = mixed.own_share
    assert 0.5 <= share.min() < share.max() < 1
    expected = torch.where(torch.arange(N) % 2 == 1, share, 1 - share) * 200
    torch.testing.assert_close(mixed.images[:, 0, 0, 0].float(), expected.round(), atol=1, rtol=0)
    logits, labels = torch.randn(N, 5), torch.arange(N) % 5
    batch = Batch(mixed.images, labels, torch.arange(N), N, partner_labels=labels.roll(-1), own_share=share)
    soft = share[:, None] * F.one_hot(labels, 5) + (1 - share[:, None]) * F.one_hot(labels.roll(-1), 5)
    losses = F.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(classifier_module._losses(logits, batch), losses)
    with pytest.raises(UserError, match=r"data.augment_views=3: mixup and cutmix make new pairs"):
        TrainingViews(["mixup"], 3, 0.5, 0, 0, Preprocess(8))


# ---- runs


class Tiny(nn.Module):
    """A network of one convolution, with what `Classifier` needs."""

    frozen = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spec = {"backbone": "tiny", "num_classes": 4}
        self.conv, self.fc = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, 4)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.conv(images).relu()

    def forward_head(self, features: Tensor) -> Tensor:
        return self.fc(features.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class Plug(L.Callback):
    """Ends a run at the start of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("pulled the plug")


def test_a_run_that_is_resumed_within_an_epoch_goes_on_bit_for_bit(tmp_path):
    def fit(folder: Path, *callbacks: L.Callback) -> dict[str, Any]:
        """Train for two epochs of three steps, with a checkpoint every two steps."""
        module = Classifier(Tiny(), lambda weights: torch.optim.SGD(weights, lr=0.1))  # type: ignore[arg-type]
        augment = ["strong", {"mixup": 0.5}, {"cutmix": 0.5}]
        data = Coloured(48, image_size=24, val_size=0, augment=augment, masks=True, placement="host")
        last = folder / run_folder.LAST
        run = trainer(
            folder, max_epochs=2, limit_val_batches=0, callbacks=[*callbacks, *checkpoints(Run(folder), False, 2)]
        )
        run.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        return {**weights(module.network), **run.callback_metrics}

    whole = fit(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, Plug(5))
    resumed = fit(tmp_path)
    assert whole.keys() == resumed.keys()
    assert {name for name in whole if not torch.equal(whole[name], resumed[name])} == {"train/images_per_second"}


@pytest.mark.parametrize(
    ("options", "columns"), [({"augment": ["standard", "mixup"]}, 7), ({"augment": "flip", "augment_views": 2}, 3)]
)
def test_a_sheet_shows_what_the_first_epochs_see(tmp_path, options, columns, caplog):
    caplog.set_level(logging.INFO)
    data = Coloured(8, n_test=4, image_size=24, val_size=0, **options)
    data.setup()
    sheet = AugmentationSheet(tmp_path, "standard")
    sheet.on_fit_start(SimpleNamespace(datamodule=data, is_global_zero=False), None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir()), "another rank writes it"
    sheet.on_fit_start(SimpleNamespace(datamodule=data, is_global_zero=True), None)  # type: ignore[arg-type]
    assert str(tmp_path / "augmentation.png") in caplog.text
    AugmentationSheet(tmp_path / "nowhere", "").on_fit_start(  # type: ignore[arg-type]
        SimpleNamespace(datamodule=data, is_global_zero=True), None
    )
    assert "nowhere/augmentation.png cannot be written (No such file or directory). Training goes on." in caplog.text
    with Image.open(tmp_path / "augmentation.png") as picture:
        assert picture.width == columns * TILE_HEIGHT + (columns - 1) * 6 + 2 * 18
    assert _of_different_classes(data.splits["train"], 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_run_writes_its_sheet_when_it_begins_and_is_evaluated_like_any_other(tmp_path, monkeypatch):
    given = [
        "data=shapes", "data.train_size=40", "data.test_size=10", "data.val_size=0", "data.image_size=64",
        "arch.weights=null", "logger=csv", "callbacks.heatmaps=null", "callbacks.scores=null", "trainer.accelerator=cpu",
        "data.augment=[standard,{crop: {scale: 0.4}},mixup]", f"paths.cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert command(monkeypatch, train.main, *given, "trainer.max_epochs=1", f"out={tmp_path / 'one'}") == 0
    assert (tmp_path / "one" / "augmentation.png").is_file()
    resumed = [*given, "trainer.max_epochs=2", f"resume={tmp_path / 'one'}", f"out={tmp_path / 'two'}"]
    assert command(monkeypatch, train.main, *resumed) == 0
    assert (tmp_path / "two" / "result.json").is_file()
    assert not (tmp_path / "two" / "augmentation.png").exists()
    evaluated = [f"checkpoint={tmp_path / 'two'}", "trainer.accelerator=cpu", f"out={tmp_path / 'three'}"]
    assert command(monkeypatch, evaluate.main, *evaluated) == 0
