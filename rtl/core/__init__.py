"""Sequencer, DMA, scratchpad, epilogue and vector unit."""
