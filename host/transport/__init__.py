"""One module a way to reach a card."""
