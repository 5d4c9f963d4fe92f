"""When to draw, score and report: Lightning callbacks."""

from camlab.callbacks.feature_cache import FeatureCache
from camlab.callbacks.heatmap_logger import HeatmapLogger
from camlab.callbacks.loss_guard import LossGuard
from camlab.callbacks.pointing_game import PointingGame
from camlab.callbacks.progress import PlainProgress, TimeEstimate

__all__ = ["FeatureCache", "HeatmapLogger", "LossGuard", "PlainProgress", "PointingGame", "TimeEstimate"]
