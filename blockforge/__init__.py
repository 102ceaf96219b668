"""BlockForge."""
