"""What runs on the user's computer."""
