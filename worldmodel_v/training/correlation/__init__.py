"""Losses against latents that depend on each other: their total correlation, estimated from a batch's posteriors (`sampled`) or
by a discriminator (`discriminated`). `health` warns of an estimate that says nothing.
"""
