"""What a candidate is worth: `measure` says what an objective is, `scores/` holds ours, `registry` finds them."""
