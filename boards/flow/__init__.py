"""From a board's top to its bitstream: Amaranth, yosys, nextpnr, packer."""
