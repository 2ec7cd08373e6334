"""From arrays and layers to commands."""
