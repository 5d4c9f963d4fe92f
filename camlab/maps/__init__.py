"""Class activation maps as pure functions of tensors: CAM, Grad-CAM and related methods, on any device.

Shape letters: N images, K feature channels, M classes, H and W the height and width of the map's own (coarse) grid.

Maps are *signed* and in the units of the class score. `normalize` rectifies and scales them, `upsample` resizes them to
the size of a picture.
"""

from camlab.maps.activation_methods import cam, eigen_cam
from camlab.maps.attention_methods import attention_relevance, legrad
from camlab.maps.gradient_methods import (
    GRADIENT_METHODS,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from camlab.maps.gradients import class_gradients, finer_scores, gradient_safe, guided_grad_cam
from camlab.maps.perturbation_methods import ablation_cam, score_cam
from camlab.maps.scaling import Normalization, fuse, normalize, upsample

__all__ = [
    "GRADIENT_METHODS",
    "Normalization",
    "ablation_cam",
    "attention_relevance",
    "cam",
    "class_gradients",
    "eigen_cam",
    "finer_scores",
    "fuse",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_safe",
    "guided_grad_cam",
    "hires_cam",
    "layer_cam",
    "legrad",
    "normalize",
    "score_cam",
    "upsample",
    "xgrad_cam",
]
