"""The deepseek card: an open, scaled-down AI accelerator, whole."""

__version__ = "0.1.0"
