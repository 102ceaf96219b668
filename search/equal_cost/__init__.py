"""Networks at equal cost: fitted to one budget, trained with the same recipe, compared over seeds."""
