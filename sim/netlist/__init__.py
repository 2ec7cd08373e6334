"""Netlists of device cells as Verilog that Verilator can run."""
