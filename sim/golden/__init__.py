"""NumPy models written from the specification."""
