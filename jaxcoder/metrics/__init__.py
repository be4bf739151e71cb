"""Metrics: sufficient statistics on the devices, summaries on the host."""
