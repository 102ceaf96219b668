"""The best of a search trained again, from scratch and with fresh seeds, beside what it began with."""
