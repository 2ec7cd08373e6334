"""What runs or predicts the hardware without a board."""
