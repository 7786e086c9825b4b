"""edgeprune: prune a CNN by filter similarity, recover it, export it, and measure whether it got faster."""

__version__ = "0.1.0"
