"""Networks that show where they look."""

from camlab.models.cam_net import BACKBONES, CamNet
from camlab.models.evaluating import evaluating

__all__ = ["BACKBONES", "CamNet", "evaluating"]
