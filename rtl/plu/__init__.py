"""The programmable function slot and the functions that ship with it."""
