"""Files from strangers: refused by name, in bounded time and memory, without running or reading anything else."""
