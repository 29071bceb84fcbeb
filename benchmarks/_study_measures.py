"""What one recipe's latents hold of CarRacing, what they cost, and how far a dynamics model follows them; see `dreams.py`.

Legend: N frames, S dreams, H their steps, K variables of the state, F features of a latent.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _dreaming import WARM_UP, Dynamics, draws_of, dream, error_curves, features_of, learn_dynamics
from _road import NAMES, ROAD, road_of
from _small_things import CLASSES, class_measures, edge_psnr, recall_precision_f1
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from worldmodel_v.autoencoders import Autoencoder, frames_to_input
from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS, Tokenizer
from worldmodel_v.data import Split
from worldmodel_v.evaluation.metrics import score_frames, ssim
from worldmodel_v.evaluation.sample import Sample, read_sample
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.profiles import CAR_RACING
from worldmodel_v.progress import Silent
from worldmodel_v.records import Episode
from worldmodel_v.storage import open_dataset

ENV = "worldmodel_v/CarRacing-v3"
HOLDOUT_EVERY = 5
HORIZON, START_EVERY = 100, 10
SCORED_FRAMES, TIMED_FRAMES = 2000, 512
CPU = torch.device("cpu")
PROBE_ROWS, MAX_STARTS = 20_000, 128
RIDGES = 10.0 ** np.arange(-1, 6)

Columns = dict[str, np.ndarray]

# What the latents hold


def picture_figures(model: Autoencoder, sample: Sample) -> dict[str, float]:
    """Of reconstructions of held-out frames after the zoom-in."""
    measures = {"ssim": ssim, "edges": edge_psnr, **class_measures()}
    scores = score_frames(model, sample.frames, CPU, condition_NK=sample.condition, measures=measures)
    total = {name: float(values.sum()) for name, values in scores.measures.items()}
    figures = {"PSNR": float(scores.psnr.mean())}
    figures |= {"SSIM": total["ssim"] / len(sample), "PSNR at edges": total["edges"] / len(sample)}
    for name in CLASSES:
        found = recall_precision_f1(*(total[f"{name}_{count}"] for count in ("there", "found", "both")))
        figures |= {f"{name} {what}": value for what, value in zip(("recall", "precision", "F1"), found, strict=True)}
    own = model.figures(scores)
    rate = own["kl_nats"] if "kl_nats" in own else own["entropy_bits"] * np.log(2)
    return {**figures, "rate, nats": float(rate)}


def held_out_sample(data: Path, model: Autoencoder) -> Sample:
    """Frames of the held-out episodes, evenly spaced, without those in which the camera zooms in."""
    sample = read_sample(open_dataset(data), model, holdout_every=HOLDOUT_EVERY, limit=SCORED_FRAMES, progress=Silent())
    after = sample.row >= CAR_RACING.zoom_rows
    columns = {name: values[after] for name, values in vars(sample).items() if name != "state_names"}
    return Sample(state_names=sample.state_names, **columns)


def microseconds_a_frame(model: Autoencoder, sample: Sample) -> float:
    """Processor time of encoding in batches of 64, in one thread."""
    ready, threads = model.for_inference(CPU, "fp32"), torch.get_num_threads()
    batches = frames_to_input(torch.from_numpy(sample.frames[:TIMED_FRAMES]), model.config.channels).split(64)
    torch.set_num_threads(1)
    with torch.no_grad(), threadpool_limits(1):  # the matrix products in `for_inference` are not PyTorch's
        ready.encode(batches[0])
        start = time.process_time()
        for batch in batches:
            ready.encode(batch)
        seconds = time.process_time() - start
    torch.set_num_threads(threads)
    return 1e6 * seconds / sum(map(len, batches))


def storage(latents: Path) -> tuple[str, int]:
    """What is stored of a frame, in words, and its bytes."""
    columns = open_dataset(latents).schema.by_role("latent")
    sizes = [int(np.prod(column.row_shape)) for column in columns]
    bytes_a_frame = sum(size * np.dtype(column.dtype).itemsize for size, column in zip(sizes, columns, strict=True))
    values = columns[0].num_values
    return (f"{sizes[0]} numbers" if values is None else f"{sizes[0]} tokens of {values}"), bytes_a_frame


# The probe and the dreams


def episodes_of(latents: Path, model: Autoencoder) -> dict[bool, list[Columns]]:
    """The columns of each episode, by whether it is held out; of the others only as many rows as the probe needs."""
    dataset = open_dataset(latents)
    split, generator = Split(dataset, HOLDOUT_EVERY), torch.Generator().manual_seed(0)
    stride = max(1, dataset.num_rows // PROBE_ROWS)
    found: dict[bool, list[Columns]] = {False: [], True: []}
    for episode in dataset:
        held_out = split.is_held_out(episode.episode_id)
        found[held_out].append(columns_of(episode, model, slice(None, None, 1 if held_out else stride), generator))
    return found


def columns_of(episode: Episode, model: Autoencoder, rows: slice, generator: torch.Generator) -> Columns:
    """Of some rows of an episode: its latents as the dynamics model takes them, what probes read of them and of a draw, the
    actions, the state on the road, and whether the car is near it."""
    columns = {column.name: episode.columns[column.name][rows] for column in episode.schema.by_role("latent")}
    features = features_of(model, columns)
    latent = columns[TOKENS].astype(np.int64) if isinstance(model, Tokenizer) else columns["mu"].astype(np.float32)
    road, near = road_of(ENV, episode)
    return {
        "latent": latent.reshape(len(latent), -1),
        "features": features.numpy(),
        "draws": draws_of(features, columns, generator).numpy(),
        "action": episode.columns["action"][rows],
        **{"road": road[rows], "near": near[rows]},
    }


def near_road(episodes: list[Columns], name: str) -> np.ndarray:
    """A column of all rows near the road."""
    return np.concatenate([each[name][each["near"]] for each in episodes])


def fitted_probe(episodes: dict[bool, list[Columns]], column: str) -> tuple[Pipeline, dict[str, float]]:
    """Ridge regression from a column to the state, and its R² by variable on held-out episodes."""
    (x, y), (test_x, test_y) = ((near_road(each, column), near_road(each, "road")) for each in episodes.values())
    probe = make_pipeline(StandardScaler(), RidgeCV(RIDGES)).fit(x, y)
    r2 = r2_score(test_y, probe.predict(test_x), multioutput="raw_values")
    return probe, dict(zip(NAMES, map(float, r2), strict=True))


def dream_figures(latents: Path, model: Autoencoder, dynamics_steps: int, seed: int) -> dict[str, Any]:
    """The probes, the dynamics model and its dreams."""
    episodes = episodes_of(latents, model)
    _, of_means = fitted_probe(episodes, "features")
    probe, of_draws = fitted_probe(episodes, "draws")
    dynamics, nats = learn_dynamics(latents, model, dynamics_steps, seed)
    starts = starts_of(episodes[True])
    curves = dream_curves(probe, dynamics, starts, near_road(episodes[False], "road"), seed)
    return {
        **{"probe R²": over_road(of_means), "R² of draws": over_road(of_draws), "steering R²": of_means["steering"]},
        **{"R²": {"mean": of_means, "draws": of_draws}, "dreams": len(starts)},
        "curves": {name: as_lists(found) for name, found in curves.items()},
        **{f"nats over {name}": nats[name] - nats["nll"] for name in ("constant", "staying")},
        "nats": nats,
    }


def over_road(r2: dict[str, float]) -> float:
    """The mean over the variables of the road."""
    return float(np.mean([r2[name] for name in ROAD]))


def as_lists(curves_HK: np.ndarray) -> dict[str, list[float]]:
    """By variable, and "all"."""
    return dict(zip([*ROAD, "all"], np.round(curves_HK.T, 4).tolist(), strict=True))


def starts_of(episodes: list[Columns]) -> list[tuple[Columns, int]]:
    """Episodes and first rows of dreams, during which the car stays near the road, evenly spaced. Raises SystemExit."""
    length = WARM_UP + HORIZON
    starts = [(each, row) for each in episodes for row in range(0, len(each["near"]) - length + 1, START_EVERY)]
    near = [(each, row) for each, row in starts if each["near"][row : row + length].all()]
    if not near:
        raise SystemExit("no held-out episode stays near the road for long enough: ask for more --frames")
    return [near[i] for i in evenly_spaced(len(near), MAX_STARTS)]


def dream_curves(
    probe: Pipeline, dynamics: Dynamics, starts: list[tuple[Columns, int]], known_NK: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """`error_curves` of dreams, of the real latents, of what stays, and of the mean of the state in the training episodes
    (known_NK): (H, variables + 1) each."""

    def windows(name: str) -> np.ndarray:
        return np.stack([each[name][row : row + WARM_UP + HORIZON] for each, row in starts])

    def read(features_SHF: np.ndarray) -> np.ndarray:
        flat = probe.predict(features_SHF.reshape(-1, features_SHF.shape[-1]))
        return flat.reshape(*features_SHF.shape[:2], -1)[..., :visible]

    visible = len(ROAD)
    latent, action = (torch.from_numpy(windows(name)) for name in ("latent", "action"))
    dreamed = dream(dynamics, latent[:, :WARM_UP], action, HORIZON, seed).numpy()
    real, true = read(windows("features")), windows("road")[..., :visible]
    last, after = slice(WARM_UP - 1, WARM_UP), slice(WARM_UP, None)
    readings = {"dream": read(dreamed), "real latents": real[:, after]}
    readings |= {"latent stays": real[:, last], "state stays": true[:, last]}
    readings["mean"] = known_NK[:, :visible].mean(axis=0)
    std_K = known_NK[:, :visible].std(axis=0)
    return {name: error_curves(found, true[:, after], std_K) for name, found in readings.items()}
