"""Official checkpoints: one file a family says which official tensors each of our tensors comes from."""

from blockforge.weights.official import load_official

__all__ = ["load_official"]
