"""Ops of ops: one file each."""
