"""Packaged search spaces."""
