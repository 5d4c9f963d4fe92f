"""How far a heatmap can be trusted."""
