"""The networks that camlab trains: a backbone, which can be frozen, and a head."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """backbone → head. A frozen backbone keeps its weights and stays in eval mode.

    Attributes:
        backbone: The part that can be frozen.
        fc: The linear layer at the end.
        spec: Arguments from which a checkpoint builds the network again.
        frozen: Whether only the head is trained.
    """

    backbone: nn.Module
    fc: nn.Linear
    spec: dict[str, Any]
    frozen: bool

    def freeze(self, frozen: bool) -> None:
        """Fix the backbone's weights, or have them trained, from now on; the network is then in train mode."""
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()  # batch norm in train mode would move its running statistics
        return self

    @abstractmethod
    def forward_backbone(self, images: Tensor) -> Tensor:
        """The backbone's output for images N×3×H×W: the input of the head."""

    @abstractmethod
    def forward_features(self, images: Tensor) -> Tensor:
        """The input of the pooling, N×K×H×W, or of the last layer, N×D."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """N×M logits from `forward_features`' output."""

    @abstractmethod
    def head_statistic(self, backbone_features: Tensor) -> Tensor:
        """Compress `forward_backbone`'s output to a sufficient statistic of the head: all that the logits depend on."""

    @abstractmethod
    def forward_head_statistic(self, head_statistic: Tensor) -> Tensor:
        """N×M logits from `head_statistic`'s output, equal to `forward`'s except for rounding."""

    @property
    @abstractmethod
    def statistic_spec(self) -> dict[str, Any]:
        """The settings that decide, with the weights and the images, what `head_statistic` gives."""

    @abstractmethod
    def check_image_size(self, image_size: int) -> None:
        """Refuse images of `image_size`² pixels if the network cannot take them.

        Raises:
            UserError: The message says why.
        """

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))
