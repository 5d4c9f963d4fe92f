"""CamNet: a convolutional backbone with a head whose class scores are weighted sums of feature maps.

As in section 2 of the report, after Zhou et al. 2016 (arXiv:1512.04150): a 3×3 convolution, global average pooling and
one linear layer replace the layers after the last max-pooling.
"""

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from camlab.errors import UserError
from camlab.models.backbones import BACKBONES, check_image_size
from camlab.models.classifier_names import check_backbone
from camlab.models.named_networks import output_shape, trunk_and_channels, weight_tensors
from camlab.models.network import Network
from camlab.models.weights import load_tensors

# Rows (or columns) that the first, second and third cell of a kernel read: (offset at the start, offset at the end).
_WINDOWS = ((0, -1), (0, 0), (1, 0))


class CamNet(Network):
    """backbone → pool → cam_conv → global average pooling → fc.

    Shapes for AlexNet at 224², letters as in `camlab.maps`: images N×3×224×224, last ReLU N×256×13×13, backbone
    N×256×6×6 (13×13 without the last pooling), features N×K×6×6, logits N×M.

    Args:
        backbone: Name of a network of torchvision (`alexnet`, `resnet18`, …), or of timm after `timm/`. Its part before
            the head is used.
        num_classes: M.
        cam_channels: K, 10 in the report, 1024 in the paper.
        cam_relu: Put a ReLU after cam_conv (the report has none).
        keep_last_pool: Keep the last max-pooling of AlexNet or a VGG, as the report does; without it maps are twice as
            fine. Other networks of torchvision have none there.
        weights: Weights of the backbone: `pretrained` or `imagenet` (those of its library), a .safetensors or .pth
            file, or None for random ones.
        frozen: Keep the backbone's weights fixed and the backbone in eval mode.
        cam_conv: Put the convolution before the pooling. Without it, a network that already ends in average pooling and
            one linear layer keeps its structure: backbone → global average pooling → fc.

    Raises:
        UserError: The backbone is unknown, has no convolutional trunk or, with `cam_conv` false, another head; the
            weights cannot be downloaded or read, or do not fit.
    """

    def __init__(
        self,
        backbone: str = "alexnet",
        num_classes: int = 10,
        cam_channels: int = 10,
        cam_relu: bool = False,
        keep_last_pool: bool = True,
        weights: str | None = None,
        frozen: bool = False,
        cam_conv: bool = True,
    ) -> None:
        super().__init__()
        if cam_relu and not cam_conv:
            raise UserError(
                "arch.cam_relu=true: arch.cam_conv=false leaves no cam_conv to put it after. Give one of them."
            )
        self.spec = {
            "backbone": backbone,
            "num_classes": num_classes,
            "cam_channels": cam_channels,
            "cam_relu": cam_relu,
            "keep_last_pool": keep_last_pool,
            "cam_conv": cam_conv,
        }
        self.backbone, self.pool, channels = _backbone_and_pool(backbone, keep_last_pool, weights, not cam_conv)
        self.cam_conv = nn.Conv2d(channels, cam_channels, kernel_size=3, padding=1) if cam_conv else nn.Identity()
        self.cam_relu = nn.ReLU() if cam_relu else nn.Identity()
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(cam_channels if cam_conv else channels, num_classes)
        self.grad_cam_layer = "backbone"  # the ReLU after the last pretrained convolution, before pooling
        self.cam_layer = "cam_relu" if cam_relu else "cam_conv" if cam_conv else "backbone"  # input of global_pool
        if weights is None and backbone in BACKBONES:
            _initialize(self)
        self.to(memory_format=torch.channels_last)  # 1.2 to 1.7 × as fast on CPUs, and the layout for tensor cores
        self.freeze(frozen)

    def forward_last_relu(self, images: Tensor) -> Tensor:
        """Output of the ReLU after the last convolution, before pooling: Grad-CAM's default target."""
        return self.backbone(images)

    def forward_backbone(self, images: Tensor) -> Tensor:
        """Input of cam_conv: the backbone's output after its last pooling."""
        return self.pool(self.forward_last_relu(images))

    def forward_cam_conv(self, backbone_features: Tensor) -> Tensor:
        """N×K×H×W features from `forward_backbone`'s output."""
        return self.cam_relu(self.cam_conv(backbone_features))

    def forward_features(self, images: Tensor) -> Tensor:
        """N×K×H×W features: output of cam_conv, input of the global average pooling."""
        return self.forward_cam_conv(self.forward_backbone(images))

    def forward_head(self, features: Tensor) -> Tensor:
        """N×M logits from `forward_features`' output: global average pooling, then fc."""
        return self.fc(self.global_pool(features).flatten(1))

    def forward_from_last_relu(self, activations: Tensor) -> Tensor:
        """N×M logits from `forward_last_relu`'s output: the part of the network after Grad-CAM's default target."""
        return self.forward_head(self.forward_cam_conv(self.pool(activations)))

    def head_statistic(self, backbone_features: Tensor) -> Tensor:
        """Compress backbone features to a sufficient statistic of the head: all that the logits depend on.

        Without a ReLU after cam_conv, everything after the backbone is linear, and the mean of a 3×3 convolution is its
        kernel times the means of nine shifted windows. For the head, C·9 numbers therefore stand for all C·H·W.

        Args:
            backbone_features: Output of `forward_backbone`, N×C×H×W.

        Returns:
            N×(C·9); with a ReLU after cam_conv, the features themselves, N×C×H×W; without cam_conv, their means, N×C.
        """
        if not self.spec["cam_conv"]:
            return backbone_features.mean(dim=(2, 3))
        return backbone_features if self.spec["cam_relu"] else window_means(backbone_features)

    def forward_head_statistic(self, head_statistic: Tensor) -> Tensor:
        if not self.spec["cam_conv"]:
            return self.fc(head_statistic)
        if self.spec["cam_relu"]:
            return self.forward_head(self.forward_cam_conv(head_statistic))
        assert isinstance(self.cam_conv, nn.Conv2d)
        return self.fc(F.linear(head_statistic, self.cam_conv.weight.flatten(1), self.cam_conv.bias))

    @property
    def statistic_spec(self) -> dict[str, Any]:
        decisive = {key: self.spec[key] for key in ("backbone", "keep_last_pool", "cam_relu")}
        return decisive if self.spec["cam_conv"] else {**decisive, "cam_conv": False}

    @property
    def has_last_pool(self) -> bool:
        """Whether there is a last max-pooling that `keep_last_pool` could leave out."""
        return not isinstance(self.pool, nn.Identity)

    def map_size(self, image_size: int) -> tuple[int, int]:
        """Return the (height, width) in cells of the features, and so of CAM, for images of `image_size`² pixels.

        Raises:
            UserError: The images are too small for the network.

        Example:
            >>> CamNet("alexnet").map_size(224), CamNet("alexnet", keep_last_pool=False).map_size(224)
            ((6, 6), (13, 13))
        """
        if self.spec["backbone"] in BACKBONES:
            check_image_size(self.spec["backbone"], self.spec["keep_last_pool"], image_size)
        whole = nn.Sequential(self.backbone, self.pool)  # cam_conv keeps the size
        height, width = output_shape(whole, self.spec["backbone"], image_size)[2:]
        return height, width

    def check_image_size(self, image_size: int) -> None:
        self.map_size(image_size)


def _backbone_and_pool(
    backbone: str, keep_last_pool: bool, weights: str | None, keeps_head: bool
) -> tuple[nn.Module, nn.Module, int]:
    """Build a backbone with its weights, and the pooling after it: two modules, and the number of channels.

    Only AlexNet and the VGGs of torchvision are cut between their last activation and their last pooling.
    """
    check_backbone(backbone)
    if backbone not in BACKBONES or keeps_head:
        trunk, channels = trunk_and_channels(backbone, keeps_head)
        if weights is not None:
            named = getattr(trunk, "network", trunk)
            load_tensors(named, weight_tensors(backbone, weights), backbone, f"arch.weights={weights}")
        return trunk, nn.Identity(), channels
    with torch.device("meta"):  # nine tenths of the weights belong to a classifier that is not used
        layers = torchvision.models.get_model(backbone, weights=None).features
    layers = layers.to_empty(device=torch.get_default_device())
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    if weights is not None:
        load_tensors(layers, weight_tensors(backbone, weights), backbone, f"arch.weights={weights}", "features.")
    channels = next(layer.out_channels for layer in reversed(layers) if isinstance(layer, nn.Conv2d))
    return layers[:-1], layers[-1] if keep_last_pool else nn.Identity(), channels


def window_means(features_NCHW: Tensor) -> Tensor:
    """Mean input of each weight of a 3×3 convolution with padding 1, N×(C·9), in the order of its kernel.

    Entry (c, i, j) is the mean, over all output positions, of the value that kernel cell (i, j) reads in channel c;
    padding counts as zero. It is a sum over a window, divided by H·W. For i = 0, 1 and 2 the window has all rows but
    the last, all rows, and all rows but the first; for j the same holds for columns.

    Example:
        >>> means = window_means(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        >>> (4 * means).reshape(3, 3).tolist()  # sums over the cells that each kernel cell reads
        [[1.0, 3.0, 2.0], [4.0, 10.0, 6.0], [3.0, 7.0, 4.0]]
    """
    height, width = features_NCHW.shape[-2:]
    rows = [features_NCHW[..., first : height + last, :].sum(dim=-2) for first, last in _WINDOWS]
    columns = [[row[..., first : width + last].sum(dim=-1) for first, last in _WINDOWS] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in columns], dim=-2).flatten(1) / (height * width)


def _initialize(network: nn.Module) -> None:
    """Draw random weights as He et al. 2015 and torchvision's VGGs do.

    The default initialization of torchvision's AlexNet shrinks the signal threefold with each layer, so that nothing is
    learned in the first epochs.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
