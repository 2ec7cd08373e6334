"""Command-level simulator on top of the golden models."""
