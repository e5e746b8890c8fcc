"""Adapters, one per way to draw a posterior, and what harness and workers say to each other."""
