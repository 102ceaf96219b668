"""Objectives of this package, one file each: module `NAME` holds what makes the objective, called `NAME` too. Options
of the text `NAME:key=value` are its parameters."""
