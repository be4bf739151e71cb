"""Benchmarks: what speed and memory are, measured by one command each."""
