"""What a graph costs: parameters, multiply-adds, memory in inference and in training."""
