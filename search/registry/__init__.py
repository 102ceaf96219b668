"""What a text on the command line or in a study names: something of this package, or code of the user's."""
