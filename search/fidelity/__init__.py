"""What a cheap score is worth: networks trained at a ladder of budgets, and what a search makes of that."""
