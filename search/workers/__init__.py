"""Processes that work on a study, and what starts, stops and watches them."""
