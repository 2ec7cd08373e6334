"""Memory bus, HBM controller and device timing."""
