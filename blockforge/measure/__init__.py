"""Measurements that users make: latency, memory, kernels, ours beside another implementation."""
