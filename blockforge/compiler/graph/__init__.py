"""Plan -> graph with shapes: blocks made, nodes and edges in order, what each reads and gives."""
