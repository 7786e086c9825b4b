"""Prune: which filters go, and a model without them. Start with `trace`, then score, allocate, apply."""
