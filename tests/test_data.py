"""Data: the same pixels as torchvision's transforms give, each image once per epoch, orders that can be replayed."""

import json
import logging
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torchvision.transforms as T
from conftest import Coloured
from PIL import Image

from camlab.data.augmentation import flip_where
from camlab.data.cifar10 import Cifar10
from camlab.data.folder import Folder
from camlab.data.image_set import ImageSet, stratified_split
from camlab.data.loader import Loader, epoch_flips, epoch_order
from camlab.data.shapes import Shapes
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("stored", "size"), [(32, 224), (32, 96), (96, 64), (64, 64), (50, 33)])
def test_pixels_equal_torchvisions_transforms(stored, size):
    images = torch.randint(0, 256, (8, 3, stored, stored), dtype=torch.uint8)
    ours = Preprocess(size)(images) * 0.5 + 0.5
    oracle = T.Compose([T.Resize((size, size)), T.ToTensor()])
    theirs = torch.stack([oracle(pil(image)) for image in images])
    assert (ours - theirs).abs().max() <= 1.5 / 255
    normalized = T.Compose([oracle, T.Normalize((0.5,) * 3, (0.5,) * 3)])
    assert (Preprocess(size)(images) - torch.stack([normalized(pil(i)) for i in images])).abs().max() <= 3.0 / 255


def test_real_images_equal_torchvisions_transforms(shared_data):
    images = torch.from_numpy(np.load(shared_data / "cifar10-lossless-subset.npz")["test_images"][:64])
    oracle = T.Compose([T.Resize((224, 224)), T.ToTensor()])
    theirs = torch.stack([oracle(Image.fromarray(image.numpy())) for image in images])
    assert (Preprocess(224)(images.permute(0, 3, 1, 2)) * 0.5 + 0.5 - theirs).abs().max() <= 1.5 / 255


def test_flip_mirrors_the_chosen():
    images = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    flipped = flip_where(images, torch.tensor([False, True]))
    assert torch.equal(flipped[0], images[0])
    assert torch.equal(flipped[1], images[1].flip(-1))


def test_orders_and_flips_are_functions_of_seed_and_epoch():
    assert torch.equal(epoch_order(100, 0, 3), epoch_order(100, 0, 3))
    assert not torch.equal(epoch_order(100, 0, 3), epoch_order(100, 0, 4))
    assert not torch.equal(epoch_order(100, 0, 3), epoch_order(100, 1, 3))
    assert sorted(epoch_order(100, 0, 3).tolist()) == list(range(100))
    flips = epoch_flips(10_000, 0.5, 0, 0)
    assert 0.47 < flips.float().mean() < 0.53
    assert not epoch_flips(100, 0.0, 0, 0).any()
    state = torch.get_rng_state()
    epoch_order(100, 0, 0)
    assert torch.equal(state, torch.get_rng_state()), "torch's own random state must not change"


def numbered(n: int) -> ImageSet:
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 8).contiguous()
    return ImageSet(images, torch.arange(n) % 3, ("a", "b", "c"))


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_each_batch_and_count_each_image_once(on_host, world_size):
    n, batch_size = 50, 16  # 16, 16, 16, 2
    loaders = [Loader(numbered(n), batch_size, True, 7, rank, world_size, on_host) for rank in range(world_size)]
    assert all(len(loader) == 4 for loader in loaders)
    seen = []
    for step, shares in enumerate(zip(*loaders, strict=True)):
        together = torch.cat([share.image_idx for share in shares])
        assert torch.equal(together, epoch_order(n, 7, 0)[step * batch_size : (step + 1) * batch_size])
        for share in shares:
            assert share.global_size == len(together)
            assert torch.equal(share.images[:, 0, 0, 0].long(), share.image_idx)
        seen += together.tolist()
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize("on_host", [False, True])
def test_a_resumed_loader_replays_the_rest(on_host):
    def loader() -> Loader:
        return Loader(numbered(50), 8, shuffle=True, seed=1, on_host=on_host)

    whole = loader()
    whole.set_epoch(2)
    expected = [batch.image_idx for batch in whole]
    first = loader()
    first.set_epoch(2)
    batches = iter(first)
    for _ in range(3):
        next(batches)
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    resumed.set_epoch(2)
    rest = [batch.image_idx for batch in resumed]
    assert [r.tolist() for r in rest] == [e.tolist() for e in expected[3:]]
    assert len(list(resumed)) == 7, "the next pass must be complete"
    resumed.load_state_dict({"epoch": 2, "position": 7})
    resumed.set_epoch(3)
    assert len(list(resumed)) == 7, "a state from the end of an epoch must begin the next one"


def test_an_unfinished_pass_leaves_nothing_behind():
    loader = Loader(numbered(50), 8)
    next(iter(loader))
    assert len(list(loader)) == 7


def test_stratified_split():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    rest, chosen = stratified_split(labels, 20, seed=3)
    assert labels[chosen].bincount().tolist() == [12, 6, 2]
    assert sorted(rest.tolist() + chosen.tolist()) == list(range(100))
    assert torch.equal(chosen, stratified_split(labels, 20, seed=3)[1])
    assert not torch.equal(chosen, stratified_split(labels, 20, seed=4)[1])
    assert len(stratified_split(labels, 0, seed=3)[1]) == 0
    with pytest.raises(UserError, match="only 100"):
        stratified_split(labels, 100, seed=3)


def test_split_does_not_depend_on_the_seed():
    first, second = (Coloured(seed=seed) for seed in (0, 1))
    first.setup()
    second.setup()
    assert torch.equal(first.splits["val"].images, second.splits["val"].images)


def test_nothing_held_out():
    data = Coloured(val_size=0)
    data.setup()
    assert set(data.splits) == {"train", "test"}
    assert len(data.splits["train"]) == 64
    data.trainer = L.Trainer(logger=False, enable_checkpointing=False)
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match="val_size=0"):
        data.loader("val")


def test_batches_are_prepared_on_the_device():
    data = Coloured(image_size=48)
    data.setup()
    data.trainer = L.Trainer(logger=False, enable_checkpointing=False)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.dtype == torch.uint8
    prepared = data.on_after_batch_transfer(batch, 0)
    assert prepared.images.shape == (16, 3, 48, 48)
    assert -1 <= prepared.images.min() < prepared.images.max() <= 1


def test_shapes_have_masks():
    data = Shapes(train_size=200, test_size=50, val_size=50)
    data.setup()
    assert len(data.class_names) == 10
    assert data.splits["train"].images.shape == (150, 3, 32, 32)
    assert data.splits["test"].masks is not None
    assert 0 < data.splits["test"].masks.float().mean() <= 0.12
    other = Shapes(train_size=200, test_size=50, val_size=50)
    other.setup()
    assert data.fingerprint() == other.fingerprint()


def test_cifar10_reads_the_archives_layout(shared_data, tmp_path):
    import subprocess
    import sys

    tool = shared_data.parent / "tools" / "prepare_cifar10.py"
    subprocess.run([sys.executable, str(tool), "lossless", str(tmp_path)], check=True)
    data = Cifar10(root=str(tmp_path), verify=False, val_size=0)
    data.setup()
    arrays = np.load(shared_data / "cifar10-lossless-subset.npz")
    for split in ("train", "test"):
        assert np.array_equal(data.splits[split].images.permute(0, 2, 3, 1).numpy(), arrays[f"{split}_images"])
        assert np.array_equal(data.splits[split].labels.numpy(), arrays[f"{split}_labels"])
    assert data.class_names[3] == "cat"


def images(data: Folder, split: str = "train") -> torch.Tensor:
    """All pictures of a split, read from the store."""
    return data.splits[split].to(torch.device("cpu")).images


def test_folder_takes_pictures_of_any_kind(tmp_path):
    for split in ("train", "test"):
        for name, colour in (("red ones", (255, 0, 0)), ("blue", (0, 0, 255))):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (100, 60), colour).save(folder / "wide.jpg", quality=95)
            Image.new("RGBA", (40, 90), (*colour, 255)).save(folder / "tall.png")
            Image.new("P", (64, 64)).save(folder / "palette.png")
            (folder / "notes.txt").write_text("no picture")
    data = Folder(root=str(tmp_path), image_size=48, split=(1, 0, 0))
    data.setup()
    assert data.class_names == ("blue", "red ones")
    assert images(data).shape == (6, 3, 48, 48)
    assert images(data).dtype == torch.uint8
    reds = images(data)[3:]  # palette, tall, wide
    assert reds[2, 0].float().mean() > 250
    assert reds[2, 1:].float().mean() < 5


def test_folder_keeps_the_middle_antialiased(tmp_path):
    stripes = np.zeros((100, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[:, :50] = stripes[:, 150:] = 0  # outside the centre crop
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(stripes).save(tmp_path / split / name / "0.png")
    data = Folder(root=str(tmp_path), image_size=32, split=(1, 0, 0))
    data.setup()
    inner = images(data)[0, :, :, 2:-2].float()
    assert (inner - 127.5).abs().max() < 25, "stripes finer than a pixel must become grey, not a pattern"


def write_folder(root: Path, splits: dict[str, int]) -> None:
    """Write two classes of pictures, all different, with the given number of pictures per class for each split."""
    for split, count in splits.items():
        for name in ("blue", "red"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                shade = 40 * i + len(split)
                Image.new("RGB", (40, 30), (shade, shade, 99)).save(root / split / name / f"{i}.png")


def test_a_folders_own_validation_pictures_are_the_validation_split(tmp_path):
    write_folder(tmp_path, {"train": 3, "test": 1})
    (without := Folder(root=str(tmp_path), image_size=32, split=(1, 0, 0))).setup()
    write_folder(tmp_path, {"val": 2})
    (data := Folder(root=str(tmp_path), image_size=32, val_size=0)).setup()
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 6, "test": 2, "val": 4}
    assert data.validation_splits == ("val",)
    assert images(data, "val")[0, 0, 0, 0] == len("val")
    assert len(set(data.fingerprint().split("-"))) == 3
    assert data.fingerprint() != without.fingerprint()
    Image.new("RGB", (40, 30), "white").save(tmp_path / "val" / "red" / "0.png")
    (changed := Folder(root=str(tmp_path), image_size=32, val_size=0)).setup()
    assert changed.fingerprint() != data.fingerprint()
    data.trainer = L.Trainer(logger=False, enable_checkpointing=False)
    assert len(data.val_dataloader()) == 1


def test_validation_pictures_are_not_taken_twice(tmp_path):
    write_folder(tmp_path, {"train": 3, "test": 1, "val": 1})
    with pytest.raises(UserError, match=r"^data\.val_size=2: the data have validation images of their own"):
        Folder(root=str(tmp_path), image_size=32, val_size=2).setup()
    (tmp_path / "val" / "green").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "val" / "green" / "0.png")
    with pytest.raises(UserError, match="class green is not in train/"):
        Folder(root=str(tmp_path), image_size=32, val_size=0).setup()


def test_a_run_on_a_folder_with_validation_keeps_its_best_weights(tmp_path, monkeypatch):
    from camlab import train

    write_folder(tmp_path / "data", {"train": 3, "test": 1, "val": 2})
    arguments = ["data=folder", f"data.root={tmp_path / 'data'}", "data.image_size=64", "arch.weights=null"]
    more = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv", "callbacks.heatmaps=null", "mode=finetune"]
    monkeypatch.setattr("sys.argv", ["camlab", *arguments, *more, f"hydra.run.dir={tmp_path / 'run'}"])
    train.main()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["tested_checkpoint"] == "best"
    assert "val/best_acc" in result["metrics"]


def test_masks_and_other_files_of_a_folder_are_not_trained_on(tmp_path, caplog):
    write_folder(tmp_path, {"train": 2, "test": 1})
    for name in ("train/blue/0_mask.png", "train/masks/red/9.png", "train/masks/red/1.png", "train/red/masks/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("L", (40, 30)).save(tmp_path / name)
    for name in ("train/red/photo.HEIC", "test/red/notes.txt"):
        (tmp_path / name).write_text("no picture")
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "red" / "2.gif")
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "red" / "3.jfif", "jpeg")
    Image.new("L", (40, 30)).save(tmp_path / "train" / "masks" / "red" / "none.png")
    data = Folder(root=str(tmp_path), image_size=32, split=(1, 0, 0))
    with caplog.at_level(logging.INFO):
        data.setup()
    assert data.class_names == ("blue", "red")
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1, 1, 1]
    told = [record.message for record in caplog.records if record.name == "camlab.data.folder"]
    left_out = "left out 2 files by their endings (.heic: 1, .txt: 1) and 2 masks"
    assert told == [f"data.root={tmp_path}: {left_out}."], "three masks belong to pictures, and two to none"
