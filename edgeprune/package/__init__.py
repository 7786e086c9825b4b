"""One file of a run, with all it takes to run it on its board, as a folder or as an image."""
