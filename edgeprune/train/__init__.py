"""Train: a loop that can be stopped anywhere and goes on exactly, and what may go along with it."""
