"""Planted shortcuts: known pixels, chosen by seed and picture alone; what the test then says of a network."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Coloured
from omegaconf import OmegaConf
from PIL import Image
from test_training import classifier, trainer
from torch import nn

from camlab import scores
from camlab.command_line.run_data import with_data_of_run
from camlab.data.folder import Folder
from camlab.data.image_set import ImageSet
from camlab.data.planted_set import PlantedSet, on_another_class, on_own_class, planted
from camlab.data.shortcut import KINDS, Marks, Shortcut, class_indices, draw_boxes, paste
from camlab.errors import UserError
from camlab.evaluation.report import metric_lines
from camlab.runs import run_folder
from camlab.training.callbacks.known_truth import heat_on_mark, known_truth

MARK = {"shortcut": "patch", "shortcut_classes": ["class1"], "shortcut_strength": 1.0}


def grey(n: int = 40, side: int = 32) -> ImageSet:
    pictures = torch.randint(90, 110, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pictures, torch.arange(n) % 4, ("a", "b", "c", "d"))


def coloured(**options: Any) -> Coloured:
    data = Coloured(image_size=32, val_size=12, **options)
    data.setup()
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_pixels_of_the_mask_change_and_each_picture_is_the_same_wherever_it_is_read(kind):
    pictures = grey()
    set_of = planted(pictures, Shortcut(kind, (1, 3), 0.5), "train")
    whole, marks = set_of.to(torch.device("cpu")), set_of.marks
    changed = (whole.images != pictures.images).any(dim=1)
    assert torch.equal(changed, marks.masks((32, 32)))
    assert changed.flatten(1).any(dim=1).sum() == 10  # half of the ten pictures of each of two classes
    assert set(pictures.labels[marks.of >= 0].tolist()) == {1, 3}
    assert torch.equal(pictures.images, grey().images)  # the source is not changed
    chosen = torch.tensor([37, 1, 3])
    assert torch.equal(set_of.subset(chosen).images, whole.images[chosen])
    assert torch.equal(set_of.part(chosen).to(torch.device("cpu")).images, whole.images[chosen])
    assert torch.equal(torch.cat([some.images for some in set_of.batches(7)]), whole.images)
    colours = {tuple(whole.images[i][:, changed[i]].float().mean(dim=1).round().tolist()) for i in range(40)}
    assert len(colours) > 2 or kind != "tint"  # each class has a mark of its own


def test_a_line_names_the_classes_with_a_mark(caplog):
    caplog.set_level("INFO")
    data = coloured(shortcut="tint", shortcut_classes=["class2", 0], shortcut_strength=1)
    own = [int((data.splits["train"].labels == label).sum()) for label in (2, 0)]
    counts = f"class2 ({own[0]} of {own[0]}), class0 ({own[1]} of {own[1]})"
    assert f"Shortcut: training pictures that carry a tint: {counts}." in caplog.messages


def test_an_evaluation_without_the_shortcut_drops_its_other_settings(tmp_path):
    data = "data:\n  _target_: camlab.data.shapes.Shapes\n  test_size: 9\n  shortcut: patch\n  shortcut_classes: [0]\n"
    run_folder.write_config(tmp_path, data + "  shortcut_strength: 0.5\n", "0")
    (tmp_path / "x.ckpt").touch()

    def settings(**given: Any) -> dict[str, Any]:
        about = {"checkpoint": str(tmp_path / "x.ckpt"), "paths": {"cache": "c"}, **({"data": given} if given else {})}
        return dict(with_data_of_run(OmegaConf.create(about)).data)

    assert settings()["shortcut_classes"] == [0]
    assert settings(shortcut="tint")["shortcut_strength"] == 0.5
    without = settings(shortcut=None)
    assert not [name for name in without if name.startswith("shortcut_")]
    assert (without["shortcut"], without["test_size"]) == (None, 9)


@pytest.mark.parametrize("kind", ["patch", "stripe"])
@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_a_mirrored_mark_is_still_that_of_its_class(kind, count):
    shortcut, black = Shortcut(kind, tuple(range(count)), 1), torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    boxes = draw_boxes(1, (32, 32), kind, torch.Generator().manual_seed(0)).repeat(count, 1)
    marked = paste(black, Marks(torch.arange(count), boxes), shortcut)
    top, left, bottom, right = boxes.unbind(1)
    mirrored = paste(black, Marks(torch.arange(count), torch.stack([top, 32 - right, bottom, 32 - left], 1)), shortcut)
    alike = (mirrored[:, None] == marked.flip(-1)).flatten(2).all(dim=2)
    assert not alike.fill_diagonal_(False).any()


def test_seed_strength_and_split_decide_which_pictures_carry_the_mark():
    pictures, shortcut = grey(400), Shortcut("stripe", (0,), 0.5)

    def carry(**options: Any) -> list[int]:
        split = options.pop("split", "train")
        return torch.nonzero(planted(pictures, replace(shortcut, **options), split).marks.of >= 0).flatten().tolist()

    assert carry() == carry()
    assert set(carry()) < set(carry(strength=0.8)) < set(carry(strength=1.0)) == set(range(0, 400, 4))
    assert carry(strength=0.0) == []
    assert carry() != carry(seed=1)
    assert carry() != carry(split="val")


def test_data_without_a_shortcut_are_as_before_and_every_setting_counts_for_the_identity():
    plain, marked = coloured(), coloured(**MARK)
    assert isinstance(plain.splits["train"], ImageSet)
    assert plain.split_fingerprint("test") == marked.split_fingerprint("test")  # the test carries no mark
    others = [{"shortcut": "tint"}, {"shortcut_strength": 0.5}, {"shortcut_classes": [0]}, {"split_seed": 1}]
    prints = {coloured(**{**MARK, **other}).split_fingerprint("train") for other in others}
    assert len(prints | {data.split_fingerprint("train") for data in (plain, marked)}) == 6
    for split in ("train", "val"):
        set_of = marked.splits[split]
        assert isinstance(set_of, PlantedSet)
        assert torch.equal(set_of.marks.of >= 0, set_of.labels == 1)
    assert coloured(**{**MARK, "seed": 5}).fingerprint() == marked.fingerprint()


def test_stored_pictures_carry_marks(tmp_path):
    for k in range(12):
        path = tmp_path / "photos" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 100, np.uint8)).save(path)
    data = Folder(str(tmp_path / "photos"), split=(1, 0, 0), image_size=16, shortcut="patch", shortcut_strength=1)
    with pytest.raises(UserError, match="no pictures to test on"):
        data.setup()
    data = Folder(str(tmp_path / "photos"), image_size=16, split=(0.5, 0.0, 0.5), split_seed=1, **{"shortcut": "patch"})
    data.setup()
    train = data.splits["train"]
    assert not train.in_memory
    images = train.to(torch.device("cpu")).images
    assert torch.equal((images != 100).any(dim=1), train.marks.masks((16, 16)))
    assert (train.marks.of >= 0).any()
    assert (data.splits["test"].to(torch.device("cpu")).images == 100).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**MARK, "shortcut_classes": ["clas1"]}, "data.shortcut_classes=clas1: no such class. Did you mean class1"),
        ({**MARK, "shortcut_classes": [4]}, "data.shortcut_classes=4: no such class. Give names or indices of class0"),
        ({**MARK, "shortcut_classes": []}, "data.shortcut_classes=..: no class would have a mark"),
        ({"shortcut_classes": [1]}, "there is no shortcut. Give data.shortcut=patch"),
        ({**MARK, "shortcut": "dot"}, "data.shortcut=dot: unknown. Choose from patch, stripe, tint"),
        ({**MARK, "shortcut_strength": 1.5}, "data.shortcut_strength=1.5: it is a share"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UserError, match=message):
        coloured(**options)
    assert class_indices("b", ("a", "b")) == class_indices(1, ("a", "b")) == (1,)


class Cheat(nn.Module):
    """The logit of class 0 is how magenta the most magenta pixel is, or nothing."""

    def __init__(self, cheats: bool):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 1, 1), nn.Linear(1, 4)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0, 1.0])[:, None, None])
            self.conv.bias.fill_(-2.0)
            self.fc.weight.copy_(torch.tensor([[1000.0 * cheats], [0], [0], [0]]))
            self.fc.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


def test_a_network_that_cheats_is_told_by_its_predictions_and_by_its_heat():
    shortcut, pictures, found = Shortcut("patch", (0,), 1.0), grey(), {}
    own, other = on_own_class(pictures, shortcut, "test"), on_another_class(pictures, shortcut, "test")
    assert own.labels.unique().tolist() == [0]
    assert other.labels.unique().tolist() == [1, 2, 3]
    two = on_another_class(pictures, Shortcut("patch", (0, 1), 1.0), "test")
    assert (torch.tensor([0, 1])[two.marks.of] != two.labels).all()
    assert len(two) == 40
    preprocess = coloured().preprocess
    for cheats in (True, False):
        network = Cheat(cheats).eval()
        of = [
            network(preprocess(set_of.to(torch.device("cpu")).images)).argmax(1) for set_of in (other.pictures, other)
        ]
        marked = torch.tensor(shortcut.classes)[other.marks.of]
        found[cheats] = (float(scores.reliance(*of, marked).mean()), heat_on_mark(network, preprocess, own))
    assert found[True][0] == 1
    assert found[False][0] == 0
    assert found[True][1]["heat_on_mark/cam"] > 0.9  # one pixel beside it counts, since the heat is interpolated
    assert found[False][1]["heat_on_mark/cam"] == 0
    assert found[True][1]["heat_on_mark_chance"] == pytest.approx(16 / 1024)


def test_rfs_of_one_logit():
    """Class 1 is a positive logit."""

    class Bright(torch.nn.Module):
        def forward(self, images):
            return 1000 * images.mean(dim=(1, 2, 3))[:, None]

    true = torch.arange(40) % 2
    images = (2.0 * true - 1)[:, None, None, None].expand(40, 3, 8, 8)
    masks = torch.zeros(40, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 2:5] = True
    hits = scores.noisy_hits(Bright(), images, masks, true, sigma=0.01)
    assert [float(of.mean()) for of in hits] == [1.0, 1.0]


def test_rfs_tells_object_from_background_and_is_negated_by_swapping_them():
    class Centre(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            middle = images[:, :, 3:5, 3:5].mean(dim=(1, 2, 3))
            return torch.stack([middle, -middle], dim=1)

    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(200, 8, 8, dtype=torch.bool)
    masks[:, 3:5, 3:5] = True
    true = Centre()(images).argmax(dim=1)
    found = scores.rfs(Centre(), images, masks, true, sigma=3.0)
    assert found.acc_background == 1
    assert 0.3 < found.acc_foreground < 0.8
    assert found.rfs == pytest.approx(1)  # the largest possible, given the mean of the two accuracies
    assert found.low <= found.rfs <= found.high
    swapped = scores.rfs(Centre(), images, ~masks, true, sigma=3.0)
    assert swapped.rfs == pytest.approx(-1)
    assert np.isnan(scores.rfs(Centre(), images, masks, true, sigma=0.0).rfs)  # both accuracies are 1
    halves = [scores.noisy_hits(Centre(), images[p], masks[p], true[p], 3.0, numbers=torch.arange(200)[p])
              for p in (slice(80), slice(80, 200))]  # fmt: skip
    assert scores.foreground_sensitivity(*map(torch.cat, zip(*halves, strict=True))) == found
    masks[:3] = False
    assert scores.rfs(Centre(), images, masks, true).n == 197
    with pytest.raises(UserError, match="all are empty or cover the whole picture"):
        scores.rfs(Centre(), images, masks.fill_(True), true)


@pytest.mark.slow
def test_a_run_learns_the_mark_and_resumes_bit_for_bit(tmp_path):
    options = {**MARK, "masks": True, "n_train": 24, "n_test": 12, "val_size": 4, "image_size": 64}

    def run(folder: str, epochs: int, ckpt: str | None = None):
        module, data = classifier("alexnet", "frozen", keep_last_pool=False), Coloured(**options)
        a_trainer = trainer(tmp_path / folder, max_epochs=epochs, enable_checkpointing=True)
        a_trainer.fit(module, datamodule=data, ckpt_path=ckpt)
        return module, data, a_trainer

    whole, data, a_trainer = run("whole", 2)
    _, _, first = run("parts", 1)
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _, _ = run("rest", 2, str(tmp_path / "half.ckpt"))
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    a_trainer.callbacks += known_truth(data)
    a_trainer.test(whole, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in a_trainer.callback_metrics.items()}
    named = {"test/reliance", "test/acc_absent", "test/acc_present", "test/acc_elsewhere", "test/heat_on_mark/cam"}
    assert named <= metrics.keys()
    assert {"test/acc_noise_object", "test/heat_on_mark_chance"} <= metrics.keys()
    assert len(metric_lines(metrics, "test/")) >= 2
