"""ClassifierNet: a classifier of torchvision or timm as it is, but for the number of its classes."""

from typing import Any

import torch
from torch import Tensor, nn

from camlab.errors import UserError
from camlab.models.named_networks import build, output_shape, weight_tensors
from camlab.models.network import Network
from camlab.models.weights import load_tensors


class ClassifierNet(Network):
    """backbone → fc: an unmodified network, whose last linear layer is replaced with one for the classes of the data.

    Args:
        backbone: Name of a network of torchvision (`resnet18`, `vit_b_16`, …), or of timm after `timm/`.
        num_classes: M.
        image_size: Side S of the images in pixels; transformers are built for one size.
        weights: Weights of the backbone: `pretrained` or `imagenet` (those of its library), a .safetensors or .pth
            file, or None for random ones.
        frozen: Keep all weights but those of the last layer fixed, and the backbone in eval mode.

    Raises:
        UserError: The network is unknown, cannot take images of this size, or does not end in one linear layer; the
            weights cannot be downloaded or read, or do not fit.

    Example:
        >>> ClassifierNet("resnet18", num_classes=3, image_size=64)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int = 10,
        image_size: int = 224,
        weights: str | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.spec = {"backbone": backbone, "num_classes": num_classes, "image_size": image_size}
        self.backbone = build(backbone, image_size)
        self._output_shape()  # refuses sizes that the network cannot take
        linear = _take_last_linear(self.backbone)
        if linear is None or not self._ends_in(linear):
            raise UserError(f"arch.backbone={backbone}: it does not end in one linear layer. Choose another.")
        if weights is not None:
            found = weight_tensors(backbone, weights, image_size)
            load_tensors(self.backbone, found, backbone, f"arch.weights={weights}")
        self.fc = nn.Linear(linear.in_features, num_classes, bias=linear.bias is not None)
        self.to(memory_format=torch.channels_last)
        self.freeze(frozen)

    def _ends_in(self, linear: nn.Linear) -> bool:
        """Whether the backbone now gives the input of the linear layer that was taken out of it."""
        try:
            return self._output_shape() == (1, linear.in_features)
        except UserError:  # there is something after the linear layer, or another one beside it
            return False

    def forward_backbone(self, images: Tensor) -> Tensor:
        """The input of the last layer, N×D."""
        features: Tensor = self.backbone(images)
        return features

    def forward_features(self, images: Tensor) -> Tensor:
        return self.forward_backbone(images)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.fc(features)

    def head_statistic(self, backbone_features: Tensor) -> Tensor:
        return backbone_features

    def forward_head_statistic(self, head_statistic: Tensor) -> Tensor:
        return self.fc(head_statistic)

    @property
    def statistic_spec(self) -> dict[str, Any]:
        return {"backbone": self.spec["backbone"], "input_of": "fc"}

    def check_image_size(self, image_size: int) -> None:
        if image_size != self.spec["image_size"]:
            raise UserError(
                f"data.image_size={image_size}: the network was built for arch.image_size={self.spec['image_size']}."
                " Leave arch.image_size out."
            )

    def _output_shape(self) -> tuple[int, ...]:
        return output_shape(self.backbone, self.spec["backbone"], self.spec["image_size"])


def _take_last_linear(network: nn.Module) -> nn.Linear | None:
    """Replace the linear layer that was defined last with the identity, and return it; None if there is none."""
    for name, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
            return module
    return None
