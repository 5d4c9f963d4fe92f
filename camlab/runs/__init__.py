"""Run folders: what they hold, how runs continue, and how they compare."""
