"""Graph -> module: the only passes that make tensors."""
