"""Properties that hold whatever is done to camlab's files, and in whatever order its commands are given."""
