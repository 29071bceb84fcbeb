"""Losses against blur, beside those of any autoencoder: weighted errors (`error_weights`), a discriminator (`discriminator`,
`adversarial`), the distance of features (`perceptual`). `health` warns of a discriminator that teaches nothing.
"""
