"""The report's backbones, AlexNet and the VGGs of torchvision, and the smallest images that they can take.

The module does not import torch, because the command line uses it.
"""

from camlab.errors import UserError

LARGEST_IMAGE_SIZE = 4096  # pixels, of each side; larger inputs of any network would exhaust the memory
PRETRAINED = ("pretrained", "imagenet")  # values of `arch.weights` for the weights of the backbone's own library
BACKBONES = ("alexnet", *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")))


def least_image_size(backbone: str, keep_last_pool: bool) -> int:
    """Return the side, in pixels, of the smallest images for which a backbone's output has at least one cell.

    Example:
        >>> least_image_size("alexnet", keep_last_pool=True), least_image_size("vgg13", keep_last_pool=False)
        (63, 16)
    """
    with_pool, without = (63, 31) if backbone == "alexnet" else (32, 16)
    return with_pool if keep_last_pool else without


def check_image_size(backbone: str, keep_last_pool: bool, image_size: int) -> None:
    """Refuse images that are too small for a backbone.

    Raises:
        UserError: The images are too small; the message names the least size that works.
    """
    least = least_image_size(backbone, keep_last_pool)
    if image_size < least:
        raise UserError(
            f"data.image_size={image_size}: too small for {backbone}, which needs at least {least} pixels."
            f" Give data.image_size={least} or more."
        )
