"""Joins: what makes one map of several."""
