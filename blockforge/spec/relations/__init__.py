"""Relations between the values of a spec: read, checked, solved."""
