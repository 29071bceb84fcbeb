"""Where a user's own code comes from: its files and packages, with their SHA-256 or version. It does not need Gymnasium."""
