"""A VAE's encoder and decoder as files that run without this package."""
