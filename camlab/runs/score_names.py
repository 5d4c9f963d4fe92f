"""The words that the command takes: scores, imputers and the methods that `auto` tries. Imports nothing heavy."""

SCORES_OF_AUTO = (
    "auroc",
    "energy",
    "energy_gain",
    "pointing_game",
    "srg",
    "flip_consistency",
    "effective_area",
    "class_contrast",
)
OTHER_SCORES = (
    "max_box_acc",
    "pxap",
    "feature_srg",
    "insertion",
    "deletion",
    "average_drop",
    "increase",
    "road",
    "emprt",
    "max_sensitivity",
)
SCORES = (*SCORES_OF_AUTO, *OTHER_SCORES)  # beside `mprt`, the sanity gate, which every method has to pass
METHODS_OF_AUTO = ("cam", "attention_relevance", "legrad", "grad_cam", "hires_cam", "layer_cam", "layer_cam_all")
IMPUTERS = ("mean", "blur", "road")
PSEUDO_METHODS = ("random", "constant", "centre", "edges", "mask")
