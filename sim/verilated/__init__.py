"""The RTL as a compiled library."""
