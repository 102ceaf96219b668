"""What every Triton kernel shares: how it is started, and the tiles of its products."""
