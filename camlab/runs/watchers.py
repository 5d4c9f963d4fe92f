"""The callbacks that only watch a training. Their settings cannot change what a run learns."""

# By the name of their section in conf/callbacks: those that draw, and those that add scores of their own to the result.
DRAWING = {"heatmaps": "camlab.training.callbacks.heatmap_logger.HeatmapLogger"}
SCORING = {"pointing_game": "camlab.training.callbacks.pointing_game.PointingGame"}
WATCHERS = {**DRAWING, **SCORING}
