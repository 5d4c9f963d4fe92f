"""Draws raw maps as pictures, and writes them to files."""
