"""What leaves the house: rollouts and latents in other trainers' formats, models in formats that need no package of ours."""
