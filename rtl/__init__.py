"""What becomes hardware."""
