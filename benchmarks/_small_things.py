"""What survives of small things in a reconstructed frame of CarRacing: kerbs, the car, and edges of any kind.

Legend: B frames, C, H, W.

A pixel is classified by its colour. Kerbs are red and white, and each frame shows about ten pixels of them. The colours are
(255, 0, 0) and (255, 255, 255) in the environment's own picture, and mixtures with road and grass in the smaller frame, so
a class is a range: red exceeds green and blue by 40, or all three are above 140 (road and grass stay below 110 in their
darkest channel). Red and white are one class: the kerb is the thing, and the phase of its stripes is texture. The car is red
and its tyres are dark, and the camera holds it in the same place after the zoom-in, so it is told from a kerb by the place.

Recall is the share of the class's pixels in the original that still have the class in the reconstruction. Precision is the
share of the reconstruction's pixels of the class that the original has too; painting everything red has a recall of 1 and a
precision of nearly 0. F1 is their harmonic mean. Pixels are summed over frames, as most frames have no kerb.

The general measure needs no colours: the PSNR of the tenth of pixels that have the largest gradients in the original.
"""

import math

import torch

from worldmodel_v.autoencoders.base import CodedBatch

OTHER, KERB, CAR = 0, 1, 2
CLASSES = {"kerb": KERB, "car": CAR}
REDNESS, WHITE, DARK = 40, 140, 80
CAR_ROWS, CAR_COLUMNS = slice(51, 59), slice(29, 35)
"""Where the camera holds the car in a frame of 64x64 after the zoom-in."""

EDGE_SHARE = 0.1


def pixel_classes(x_BCHW: torch.Tensor) -> torch.Tensor:
    """The class of each pixel of RGB frames of 64x64 in [0, 1]: int64 (B, H, W)."""
    red, green, blue = (x_BCHW * 255).round().unbind(dim=1)
    is_red = red - torch.maximum(green, blue) >= REDNESS
    is_white = x_BCHW.amin(dim=1) * 255 >= WHITE
    is_dark = x_BCHW.amax(dim=1) * 255 < DARK
    at_car = torch.zeros_like(is_red)
    at_car[:, CAR_ROWS, CAR_COLUMNS] = True
    kerb, car = ~at_car & (is_red | is_white), at_car & (is_red | is_dark)
    return KERB * kerb.long() + CAR * car.long()


def counts(original_BHW: torch.Tensor, found_BHW: torch.Tensor, of_class: int) -> dict[str, torch.Tensor]:
    """For each frame, how many pixels have the class in the original, in the reconstruction, and in both: (B,) each."""
    there, found = original_BHW == of_class, found_BHW == of_class
    each = {"there": there, "found": found, "both": there & found}
    return {name: pixels.flatten(start_dim=1).sum(dim=1) for name, pixels in each.items()}


def class_measures() -> dict[str, object]:
    """For `score_frames`: the counts of each class, such as `kerb_there`."""

    def of(class_name: str, count: str):
        def measure(batch: CodedBatch) -> torch.Tensor:
            pair = pixel_classes(batch.x), pixel_classes(batch.reconstruction)
            return counts(*pair, CLASSES[class_name])[count]

        return measure

    return {f"{name}_{count}": of(name, count) for name in CLASSES for count in ("there", "found", "both")}


def recall_precision_f1(there: float, found: float, both: float) -> tuple[float, float, float]:
    """Of pixels summed over frames; NaN for a recall if the class is nowhere, 0 for what has no right pixel."""
    recall = both / there if there else math.nan
    precision = both / found if found else 0.0
    return recall, precision, 2 * both / (there + found) if there + found else math.nan


def edge_psnr(batch: CodedBatch) -> torch.Tensor:
    """The PSNR in dB of the tenth of pixels with the largest gradients in the original: (B,)."""
    squared_error_BN = (batch.reconstruction - batch.x).square().mean(dim=1).flatten(start_dim=1)
    gradient_BN = gradients(batch.x).flatten(start_dim=1)
    largest = gradient_BN.topk(round(EDGE_SHARE * gradient_BN.shape[1]), dim=1).indices
    return -10 * torch.log10(squared_error_BN.gather(1, largest).mean(dim=1).clamp_min(1e-12))


def gradients(x_BCHW: torch.Tensor) -> torch.Tensor:
    """The squared length of the gradient, summed over channels, by central differences: (B, H, W)."""
    down, right = torch.gradient(x_BCHW, dim=(2, 3))
    return (down.square() + right.square()).sum(dim=1)
