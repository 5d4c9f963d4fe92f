"""Raw maps of any network."""
