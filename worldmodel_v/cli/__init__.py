"""The commands: each parses, builds, runs and leaves with an exit code. Only this package prints."""
