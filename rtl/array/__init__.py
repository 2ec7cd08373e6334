"""Processing elements, row engines and the fill path."""
