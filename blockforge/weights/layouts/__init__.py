"""Official layouts, one file a family: which official tensors each of ours comes from."""
