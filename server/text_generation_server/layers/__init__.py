"""Layers shared by every model. They know weights and ranks, never requests."""
