"""Networks that flip, crop, turn or shift the picture themselves: their maps would lie in the wrong place."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import camlab
from camlab.errors import UserError

SIDE = 32
IMAGES = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


class Moving(nn.Module):
    """A network that moves the picture, or its features between two convolutions."""

    def __init__(self, move, inside: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.move, self.inside = move, inside
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.move(self.stem(images)) if self.inside else self.stem(self.move(images))
        return self.fc(self.pool(self.block(features)).flatten(1))


MOVES = {
    "flip": lambda x: x.flip(3),
    "upside_down": lambda x: x.flip(2),
    "half_turn": lambda x: x.flip(2, 3),
    "quarter_turn": lambda x: x.rot90(1, (2, 3)),
    "transpose": lambda x: x.transpose(2, 3),
    "shift": lambda x: x.roll(x.shape[3] // 3, 3),
    "crop": lambda x: x[..., 8:24, 8:24],
    "corner": lambda x: x[..., :16, :16],
    "other_corner": lambda x: x[..., 17:, 17:],  # none of the places that differ is in it
    "pad": lambda x: F.pad(x, [16] * 4),
    "pad_right": lambda x: F.pad(x, [0, 16, 0, 0]),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_network_that_moves_the_picture_is_refused(move):
    network = Moving(move).eval()
    with pytest.raises(UserError, match="flips, crops, turns or shifts the picture"):
        camlab.heatmaps(network, IMAGES)
    with pytest.raises(UserError, match=r"layer=block: the network flips.*reshape="):
        camlab.heatmaps(network, IMAGES, "grad_cam", layer="block")


@pytest.mark.parametrize("move", ["flip", "crop", "other_corner"])
@pytest.mark.parametrize("method", ["auto", "layer_cam_all"])
def test_one_branch_of_two_that_moves_the_picture(move, method):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.moved = Moving(nn.Identity()), Moving(MOVES[move])

        def forward(self, images: Tensor) -> Tensor:
            return 0.01 * self.whole(images) + self.moved(images)

    with pytest.raises(UserError, match="flips, crops, turns or shifts the picture"):
        camlab.heatmaps(Two().eval(), IMAGES, method)


def test_layers_before_the_move_are_explained():
    network = Moving(MOVES["flip"], inside=True).eval()
    with pytest.raises(UserError, match=r"Or give a layer before it, such as stem\."):
        camlab.heatmaps(network, IMAGES, "grad_cam")
    assert camlab.heatmaps(network, IMAGES, "grad_cam", layer="stem").shape == (1, SIDE, SIDE)


def test_a_stated_layout_puts_the_map_in_its_place():
    moving, plain = Moving(MOVES["flip"]).eval(), Moving(nn.Identity()).eval()
    found = camlab.heatmaps(moving, IMAGES, "hires_cam", "block", 0, reshape=lambda features: features.flip(3))
    expected = camlab.heatmaps(plain, IMAGES.flip(3), "hires_cam", "block", 0).flip(2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "options",
    [{"padding": 4, "dilation": 4}, {"padding": 0, "kernel_size": 5}, {"stride": 3}, {"padding": 5, "kernel_size": 11}],
    ids=str,
)
@pytest.mark.parametrize("resize", [0.5, 1, 2])
def test_dilated_strided_and_padded_networks_are_not_refused(options, resize):
    def resized(pictures: Tensor) -> Tensor:
        return F.interpolate(pictures, scale_factor=resize, mode="bilinear")

    options = {"kernel_size": 3, **options}
    network = Moving(resized).eval()
    network.block[0] = nn.Conv2d(8, 8, **options)
    explainer = camlab.Explainer(network)
    assert explainer.method_for(IMAGES) == "cam"


def test_a_network_that_reads_one_pixel_in_many_is_not_refused():
    """Blocks that add nothing yet leave 1×1 convolutions with stride 2: at 3×3 cells, most places have no effect."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(zero_init_residual=True).eval()
    assert camlab.Explainer(network).method_for(torch.zeros(1, 3, 96, 96)) == "cam"


def test_units_that_are_off_are_no_crop():
    """A few places wake the units at the end, most do not; the network sees all of the picture."""
    network = Moving(nn.Identity()).eval()
    with torch.no_grad():
        network.stem[0].bias.fill_(-2.9)
    assert camlab.Explainer(network).method_for(IMAGES) == "cam"


def test_a_branch_of_few_cells_that_sees_a_part_of_the_picture_is_refused():
    class Half(Moving):
        def forward(self, images: Tensor) -> Tensor:
            coarse = F.max_pool2d(self.stem(images[..., : SIDE // 2]), 4)
            return self.fc(self.pool(self.block(coarse)).flatten(1) + 0 * self.stem(images).mean())

    with pytest.raises(UserError, match="flips, crops, turns or shifts"):
        camlab.heatmaps(Half(nn.Identity()).eval(), IMAGES, "grad_cam", "block")
