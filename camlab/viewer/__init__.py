"""Write one HTML file in which the heatmaps of runs are browsed: every epoch, class and method, without a server."""
