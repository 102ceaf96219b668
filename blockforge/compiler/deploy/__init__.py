"""The form of a network that is deployed: equal outputs in inference from fewer parts.

`terms` are the parts of a node as a graph that can be rewritten; `rules` rewrite it; `network` does so for all nodes of
an architecture, `tensors` says how the new parts' values follow from the old ones, and `model` converts a model.
"""
