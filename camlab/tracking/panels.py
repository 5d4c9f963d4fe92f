"""The curves that dashboards show, by title: the same in W&B and in TensorBoard."""

CURVES = {
    "Accuracy": ("val/acc", "train/acc"),
    "Balanced accuracy and macro F1": ("val/balanced_acc", "val/f1"),
    "Loss": ("val/loss", "train/loss"),
    "Learning rate": ("train/lr",),
}
SCORES = {
    "Pixels of the object rank first (AUROC)": ("val/heat/auroc",),
    "Heat on the object, relative to chance": ("val/heat/energy_gain",),
    "Hottest place on the object": ("val/heat/pointing_game",),
    "Removing hot features first": ("val/heat/feature_srg",),
    "Removing hot pixels first": ("val/heat/srg",),
    "Contrast between classes": ("val/heat/class_contrast",),
    "Share of the picture with heat": ("val/heat/effective_area",),
    "Drift from epoch to epoch": ("val/heat/drift",),
    "Agreement of methods": ("val/heat/agreement",),
    "Consistency when the picture is flipped": ("val/heat/flip_consistency",),
}
