"""Scores that tell how far a heatmap can be trusted."""
