"""What a search shows: tables, figures, the report, files in its folder."""
