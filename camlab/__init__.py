"""camlab: train image classifiers and draw heatmaps of where they look, with Lightning, Hydra and W&B."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camlab import scores
    from camlab.attribution.explainer import Explainer, heatmaps
    from camlab.training.callbacks.heatmap_callback import HeatmapCallback
    from camlab.training.callbacks.heatmap_scores import HeatmapScores
    from camlab.viewer.notebook import browse

__version__ = "0.1.0"
__all__ = ["Explainer", "HeatmapCallback", "HeatmapScores", "browse", "heatmaps", "scores"]

_PLACES = {
    "Explainer": "camlab.attribution.explainer",
    "HeatmapCallback": "camlab.training.callbacks.heatmap_callback",
    "HeatmapScores": "camlab.training.callbacks.heatmap_scores",
    "browse": "camlab.viewer.notebook",
    "heatmaps": "camlab.attribution.explainer",
}


def __getattr__(name: str) -> Any:
    """Import a public name, and what it needs, when it is first used."""
    if name == "scores":
        return importlib.import_module("camlab.scores")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'camlab' has no attribute {name!r}")
