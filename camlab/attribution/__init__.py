"""Computes raw maps of any network: chooses layers and classes, records a forward pass, and applies the methods."""
