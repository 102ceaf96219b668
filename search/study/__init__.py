"""A study on disk or in a database: its storage, its settings, its trials."""
