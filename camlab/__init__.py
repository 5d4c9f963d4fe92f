"""camlab: train image classifiers and draw heatmaps of where they look, with Lightning, Hydra and W&B."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camlab.attribution.explainer import Explainer, heatmaps

__version__ = "0.1.0"
__all__ = ["Explainer", "heatmaps"]


def __getattr__(name: str) -> Any:
    """Import `camlab.heatmaps` and `camlab.Explainer`, and torch with them, when they are first used."""
    if name in __all__:
        from camlab.attribution import explainer

        return getattr(explainer, name)
    raise AttributeError(f"module 'camlab' has no attribute {name!r}")
