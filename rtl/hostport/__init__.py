"""Control and status registers."""
