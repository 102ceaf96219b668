"""What ways to search are worth, replayed on tables of real trainings: nothing is trained here."""
