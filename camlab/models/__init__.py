"""Networks that show where they look, and what their input is."""
