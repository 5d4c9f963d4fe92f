"""Loggers: Weights & Biases, TensorBoard, `metrics.csv`."""
