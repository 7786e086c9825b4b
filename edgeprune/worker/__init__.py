"""What runs on the board: a job in, one JSON line per event out.

This folder is sent to the board as one zip file. It imports the standard library, numpy and the runtime, nothing else
of edgeprune. It must run on Python 3.9.
"""
