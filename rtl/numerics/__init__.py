"""Number formats, exact accumulation, rounding."""
