"""Benchmarks: what the package costs in time and memory, beside what it is measured against."""
