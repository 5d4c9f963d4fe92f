"""The convolutional networks of torchvision that a CamNet can be built on. Without torch, for the command line."""

BACKBONES = ("alexnet", *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")))
