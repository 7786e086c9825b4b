"""Many runs of `compress`, each in a process and a run folder of its own, one by one or on Ray."""
