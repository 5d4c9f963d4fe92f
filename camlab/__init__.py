"""camlab: train CNNs that show where they look (CAM, Grad-CAM) with Lightning, Hydra and W&B."""

__version__ = "0.1.0"
