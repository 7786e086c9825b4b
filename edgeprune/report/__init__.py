"""Report: what a run found out, as one value, and how it is drawn for people and programs."""
