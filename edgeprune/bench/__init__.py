"""Bench: artifacts on a device, timed side by side, and what the times allow one to say."""
