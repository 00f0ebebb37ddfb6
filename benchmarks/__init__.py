"""Benchmarks: each a module with its command, cost and result in its docstring."""
