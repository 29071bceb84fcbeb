"""Losses against blur, beside those of any autoencoder: weighted errors (`error_weights`), a discriminator (`discriminator`,
`adversarial`), the distance of features (`perceptual`). What they are told stands in `LoopConfig`; `settings` checks it and
builds them as `Extras` of a training. `health` warns of a discriminator that teaches nothing.
"""
