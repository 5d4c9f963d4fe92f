"""Maps that can be computed, yet show no place: they are told of, and not scored."""

import logging

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import camlab
from camlab.attribution.batch_explainer import BatchExplainer, Request
from camlab.attribution.doubts import mixed_cells, too_coarse
from camlab.errors import UserError
from camlab.evaluation.scoring.request import Request as Scoring
from camlab.evaluation.scoring.rows import find_rows


def network(kernel: int = 3, stride: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU()]
    layers += [nn.Conv2d(4, 4, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_maps_of_fewer_than_3x3_cells_are_told_once_and_not_scored_in_any_trainer(tmp_path, caplog):
    rows = list(zip(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]), strict=True))
    callbacks = [camlab.HeatmapCallback(folder=tmp_path / "heatmaps"), camlab.HeatmapScores()]
    trainer = L.Trainer(
        max_epochs=2,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with caplog.at_level(logging.WARNING, "camlab"):
        trainer.fit(Module(), DataLoader(rows, batch_size=4), DataLoader(rows, batch_size=4))
    told = [record.getMessage() for record in caplog.records if "2×2" in record.getMessage()]
    assert [line.partition(":")[0] for line in told] == ["Heatmaps", "No scores of heatmaps at epoch 1"]
    assert all("Give larger pictures, or an earlier layer such as 1" in line for line in told)
    assert not [name for name in trainer.callback_metrics if "heat" in name]


def test_maps_of_fewer_than_3x3_cells_are_no_row_of_camlab_score():
    with pytest.raises(UserError, match=r"^No method can be scored\. Maps are 2×2, too coarse.* such as 1\.$"):
        find_rows(network(), torch.rand(1, 3, 16, 16), Scoring(methods=("grad_cam",)), with_masks=False)
    rows, _ = find_rows(network(), torch.rand(1, 3, 16, 16), Scoring(), with_masks=False)
    assert {row.method for row in rows if row.layers} == {"layer_cam_all"}, "it has the cells of early layers"
    rows, _ = find_rows(network(), torch.rand(1, 3, 16, 16), Scoring(layers=("1",)), with_masks=False)
    assert {row.grid for row in rows} == {(8, 8)}


def test_kernels_that_cover_most_cells_are_told_where_auto_chooses():
    images = torch.rand(1, 3, 32, 32)  # 8×8 cells where the stride is 2
    survey = camlab.Explainer(network(7, stride=2)).survey(images)
    assert "kernels of 7×7 cover most of the 8×8 cells" in (mixed_cells("cam", "5", survey) or "")
    assert mixed_cells("grad_cam", "3", survey) is None, "a layer before these kernels"
    assert mixed_cells("cam", "5", camlab.Explainer(network(5, stride=2)).survey(images)) is None
    assert mixed_cells("cam", "5", camlab.Explainer(network(3)).survey(images)) is None, "as in a ResNet of 4×4 cells"
    assert too_coarse([torch.zeros(1, 8, 2), torch.zeros(1, 3, 3)], survey) is None, "one of several layers is fine"
    for methods, count in ((("auto",), 1), (("cam",), 0)):
        explainer = BatchExplainer(network(7, stride=2), Request(methods))
        explainer.explain(images, [None])
        assert len(explainer.doubts) == count


class Ensemble(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(Residual() for _ in range(count))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([member(images) for member in self.members]).mean(dim=0)


class Residual(nn.Module):
    """A network with a way around its last block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head((features + self.block(features).relu()).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("count", "layers", "is_part"),
    [
        (1, None, False),
        (2, None, True),
        (2, ["members.1.block"], True),
        (2, ["members.0.block", "members.1.block"], False),
    ],
)
def test_one_member_of_an_ensemble_is_told(count, layers, is_part):
    torch.manual_seed(0)
    explainer = BatchExplainer(Ensemble(count).eval(), Request(["grad_cam"], layers))
    explainer.explain(torch.rand(1, 3, 16, 16), [None])
    assert [doubt for doubt in explainer.doubts if "explain members.1 only" in doubt] == explainer.doubts
    assert bool(explainer.doubts) == is_part


def test_a_way_around_the_last_block_is_no_reason():
    explainer = BatchExplainer(Residual().eval(), Request(["grad_cam"], ["block"]))
    explainer.explain(torch.rand(1, 3, 16, 16), [None])
    assert not explainer.doubts


class Joined(nn.Module):
    """A network whose two branches are joined in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(8, 2)
        self.one, self.other = nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head(torch.cat([self.one(features), self.other(features)], dim=1).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize(("layers", "is_part"), [(None, True), (["one", "other"], False), (["stem"], False)])
def test_one_of_two_branches_that_are_joined_is_told(layers, is_part):
    torch.manual_seed(0)
    explainer = BatchExplainer(Joined().eval(), Request(["grad_cam"], layers))
    explainer.explain(torch.rand(1, 3, 16, 16), [None])
    told = [doubt for doubt in explainer.doubts if "Maps at other show a part of the evidence only" in doubt]
    assert told == explainer.doubts
    assert bool(told) == is_part


def test_a_branch_without_space_is_told_of_the_mean_of_all_layers():
    class Flat(Joined):
        def forward(self, images: Tensor) -> Tensor:
            features = self.one(self.stem(images)).relu().mean(dim=(2, 3))
            return self.head(torch.cat([features, images.flatten(2)[..., :4].sum(dim=1)], dim=1))

    explainer = BatchExplainer(Flat().eval(), Request(["layer_cam_all"]))
    explainer.explain(torch.rand(1, 3, 16, 16), [None])
    assert len(explainer.doubts) == 1
    assert explainer.doubts[0].startswith("The mean over all layers shows a part of the evidence only")
    explainer = BatchExplainer(Joined().eval(), Request(["layer_cam_all"]))
    explainer.explain(torch.rand(1, 3, 16, 16), [None])
    assert not explainer.doubts, "both branches are among the layers"


def test_camlab_score_tells_of_one_member_of_an_ensemble():
    rows, _ = find_rows(Ensemble(2).eval(), torch.rand(1, 3, 32, 32), Scoring(methods=("grad_cam",)), with_masks=False)
    told = {doubt for row in rows for doubt in row.doubts}
    assert len(told) == 1
    assert "in other ways (an ensemble" in told.pop()
    alone, _ = find_rows(network(), torch.rand(1, 3, 64, 64), Scoring(methods=("grad_cam",)), with_masks=False)
    assert not any(row.doubts for row in alone)
