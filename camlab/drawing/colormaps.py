"""Names of the colour tables for heatmaps. Imports nothing: the command line checks names against this list.

`viridis` and `cividis` can be read by colour-blind people and in grey print; `jet` is what the papers use.
"""

COLORMAPS = ("jet", "viridis", "cividis", "turbo", "magma", "inferno", "plasma", "hot")
