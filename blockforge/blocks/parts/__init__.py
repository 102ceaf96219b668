"""Parts: the pieces that blocks are made of."""
