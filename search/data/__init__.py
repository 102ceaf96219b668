"""Measured tables that reports and docs are made from."""
