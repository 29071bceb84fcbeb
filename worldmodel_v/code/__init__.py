"""Where a user's own code comes from, and its SHA-256 where it is in no file. It needs no package but NumPy."""
