"""The commands: each parses, builds, runs and exits with a code. Only this package prints."""
