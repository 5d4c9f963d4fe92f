"""camlab: train CNNs that show where they look (CAM, Grad-CAM) with Lightning, Hydra and W&B."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camlab.attribution.explainer import Explainer, heatmaps

__version__ = "0.1.0"
__all__ = ["Explainer", "heatmaps"]


def __getattr__(name: str) -> Any:
    """`camlab.heatmaps` and `camlab.Explainer`, imported with torch when they are first asked for."""
    if name in __all__:
        from camlab.attribution import explainer

        return getattr(explainer, name)
    raise AttributeError(f"module 'camlab' has no attribute {name!r}")
