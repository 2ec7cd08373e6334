"""Networks with real weights and real inputs."""
