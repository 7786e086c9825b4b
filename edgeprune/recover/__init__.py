"""Recover: what makes a cut model good again, without labels or training."""
