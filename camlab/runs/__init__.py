"""What the folders of runs hold."""
