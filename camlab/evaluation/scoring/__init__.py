"""Scores the heatmaps of one network on a set of pictures, method by method, and writes tables and charts."""
