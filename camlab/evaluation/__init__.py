"""Measures how accurate a trained network is."""
