"""Scores that tell how far a heatmap can be trusted.

Where is the heat (`auroc`, `energy`, …)? Does the network need what is hot (`srg`, `road`, …)? Is the map an
explanation of this network at all (`mprt`, `gate`, …)? Each function takes a batch and returns one value for each
image; `mean_interval` and `paired_difference` give means with intervals, and `SCORES` the chance levels. The metrics
(`ImageScore`, `PxAP`, `MaxBoxAcc`) are imported when they are first used, because torchmetrics takes seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

from camlab.scores.boxes import box_accuracy, box_overlaps, box_thresholds, mask_boxes, max_box_acc
from camlab.scores.catalogue import SCORES, Score, score_of
from camlab.scores.descriptive import agreement, class_contrast, drift, effective_area
from camlab.scores.explaining import Explain, Explaining
from camlab.scores.feature_removal import feature_curves, feature_srg
from camlab.scores.heat import heat, without_evidence
from camlab.scores.imputers import IMPUTERS
from camlab.scores.localisation import area, auroc, dilate, energy, energy_gain, pointing_game, pointing_game_chance
from camlab.scores.masking import average_drop, average_drop_of, increase, increase_of, masked_probabilities
from camlab.scores.passes import Passes
from camlab.scores.pixel_precision import average_precision, pixel_counts, pxap
from camlab.scores.pseudo_methods import pseudo_maps
from camlab.scores.randomisation import Randomised, Verdict, emprt, gate, mprt
from camlab.scores.ranks import spearman
from camlab.scores.reliance import (
    ForegroundSensitivity,
    foreground_sensitivity,
    noisy_hits,
    reliance,
    rfs,
)
from camlab.scores.removal import RemovalCurves, cell_order, deletion, insertion, removal_curves, road, road_of, srg
from camlab.scores.stability import flip_consistency, max_sensitivity
from camlab.scores.statistics import (
    Interval,
    ScoringError,
    bootstrap,
    check_chance,
    mean_interval,
    paired_difference,
)

if TYPE_CHECKING:
    from camlab.scores.metrics import ImageScore, MaxBoxAcc, PxAP

__all__ = [
    "IMPUTERS",
    "SCORES",
    "Explain",
    "Explaining",
    "ForegroundSensitivity",
    "ImageScore",
    "Interval",
    "MaxBoxAcc",
    "Passes",
    "PxAP",
    "Randomised",
    "RemovalCurves",
    "Score",
    "ScoringError",
    "Verdict",
    "agreement",
    "area",
    "auroc",
    "average_drop",
    "average_drop_of",
    "average_precision",
    "bootstrap",
    "box_accuracy",
    "box_overlaps",
    "box_thresholds",
    "cell_order",
    "check_chance",
    "class_contrast",
    "deletion",
    "dilate",
    "drift",
    "effective_area",
    "emprt",
    "energy",
    "energy_gain",
    "feature_curves",
    "feature_srg",
    "flip_consistency",
    "foreground_sensitivity",
    "gate",
    "heat",
    "increase",
    "increase_of",
    "insertion",
    "mask_boxes",
    "masked_probabilities",
    "max_box_acc",
    "max_sensitivity",
    "mean_interval",
    "mprt",
    "noisy_hits",
    "paired_difference",
    "pixel_counts",
    "pointing_game",
    "pointing_game_chance",
    "pseudo_maps",
    "pxap",
    "reliance",
    "removal_curves",
    "rfs",
    "road",
    "road_of",
    "score_of",
    "spearman",
    "srg",
    "without_evidence",
]


def __getattr__(name: str) -> Any:
    """Import a metric when it is first used."""
    if name in ("ImageScore", "MaxBoxAcc", "PxAP"):
        return getattr(importlib.import_module("camlab.scores.metrics"), name)
    raise AttributeError(f"module 'camlab.scores' has no attribute {name!r}")
