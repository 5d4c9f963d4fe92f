"""Turns what the user types into a job: arguments, settings, help, sweeps and error messages."""
