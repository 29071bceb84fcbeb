"""What leaves the house: data in the formats of other trainers, models in formats that need no package of ours."""
