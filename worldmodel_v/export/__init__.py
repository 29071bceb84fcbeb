"""What leaves the house: rollouts and latents in the formats of other trainers, models in formats that need no package of ours."""
