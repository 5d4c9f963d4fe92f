"""Names of the colour maps for heatmaps. The module imports nothing, because the command line uses it.

`viridis` and `cividis` can be read by colour-blind people and in greyscale print; the papers use `jet`.
"""

COLORMAPS = ("jet", "viridis", "cividis", "turbo", "magma", "inferno", "plasma", "hot")
