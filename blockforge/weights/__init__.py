"""Checkpoint layouts."""
