"""Training with Lightning: the module, its callbacks, checkpoints, interruption."""
