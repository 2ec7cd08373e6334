"""The command-level simulator: the card's bytes, executed by the golden models."""
