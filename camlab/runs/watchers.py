"""The callbacks that only watch a training. Their settings cannot change what a run learns."""

# By the name of their section in conf/callbacks: those that draw, and those that add scores of their own to the result.
DRAWING = {"heatmaps": "camlab.training.callbacks.heatmap_logger.HeatmapLogger"}
SCORING = {"scores": "camlab.training.callbacks.score_logger.ScoreLogger"}
WATCHERS = {**DRAWING, **SCORING}
FORMER = "camlab.training.callbacks.pointing_game.PointingGame"  # had a section of its own in earlier versions

# Scores of heatmaps that a training can log: those that need masks, those of the maps alone, and those that need passes
# of changed images.
OF_PLACE = ("auroc", "energy_gain", "pointing_game")
OF_MAPS = ("feature_srg", "class_contrast", "effective_area", "drift", "agreement", "flip_consistency")
OF_PASSES = ("srg",)
HEAT_SCORES = (*OF_PLACE, *OF_MAPS, *OF_PASSES)
HEADLINES = ("auroc", "srg")  # one for the place of the heat, one for its effect; more would raise more false alarms
HEAT = "val/heat/"  # what the names of their metrics begin with

# Metrics by which the best epoch can be chosen: the lowest loss, or the most of what more is better of.
ACCURACY, LOSS = "val/acc", "val/loss"
MAP = "val/map"  # mean average precision, of multi-label sets
OF_CLASSES = ("val/balanced_acc", "val/f1")  # means over the classes, in which rare classes count as much as others
CHOOSING = (
    ACCURACY,
    LOSS,
    *OF_CLASSES,
    MAP,
    *(f"{HEAT}{name}" for name in (*OF_PLACE, "feature_srg", "flip_consistency", *OF_PASSES)),
)
