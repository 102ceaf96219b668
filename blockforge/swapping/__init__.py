"""From a trained network to any budget: thinner layers and fewer of them, with its weights."""
