"""CAM-modified torchvision networks."""

from camlab.models.cam_net import BACKBONES, CamNet

__all__ = ["BACKBONES", "CamNet"]
