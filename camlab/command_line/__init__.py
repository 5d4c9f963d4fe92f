"""From what the user types to a job: arguments, settings, sweeps, and what becomes of errors."""
