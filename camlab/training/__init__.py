"""What happens within a Trainer: the Lightning module, its callbacks, checkpoints."""
