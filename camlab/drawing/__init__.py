"""From raw maps to pictures."""
