"""An autoencoder, episodes and perhaps an MDN-RNN in; one page out: the whole of `wm-view`, top to bottom."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.autoencoders import Autoencoder, Trained, load
from worldmodel_v.autoencoders.artifact import read_training
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder
from worldmodel_v.data.fit import require_fit
from worldmodel_v.device import resolve_device
from worldmodel_v.errors import ConfigError, ModelFailed, PackageMissing
from worldmodel_v.evaluation.coder import Coder
from worldmodel_v.evaluation.colours import INFERNO
from worldmodel_v.notebook import shown
from worldmodel_v.process import plain_tensors
from worldmodel_v.progress import Progress
from worldmodel_v.selection import open_rollouts
from worldmodel_v.storage import Rollouts, files
from worldmodel_v.storage.publish import publish, require_folder_of
from worldmodel_v.surface import option
from worldmodel_v.untrusted import printable
from worldmodel_v.view.actions import actions_for_page
from worldmodel_v.view.config import MAX_BYTES, MIN_ROWS, ViewConfig
from worldmodel_v.view.dream import MdnRnn, read_mdn_rnn
from worldmodel_v.view.episodes import Excerpt, kinds, read_excerpts, shortened
from worldmodel_v.view.latents import PageDecoder, latents_for_page, page_decoder
from worldmodel_v.view.network import NotConvertible
from worldmodel_v.view.packing import Weights, frames_in_a_strip
from worldmodel_v.view.page import MARK, render

MAX_DECODER_BYTES = 5_000_000
"""As text in the page; the rest is for frames, the MDN-RNN, and the library, which takes 0.4 MB."""

MARGIN = 0.97
"""Of the room that frames have: pictures of fewer frames take a little more each."""


@dataclass(frozen=True, kw_only=True)
class ViewReport:
    """What a run of `view` wrote."""

    out: Path
    """The page."""

    bytes: int
    """Its size."""

    episodes: int
    frames: int
    latents: str
    """The part with sliders for the latents: the precision of its weights, or why it is left out."""

    dream: str
    """The part that is driven: shown, or why it is left out."""


@plain_tensors()
def view(config: ViewConfig, progress: Progress | None = None) -> ViewReport:
    """Write the page `config.out` on the autoencoder `config.vae` and episodes of `config.data`.

    Raises UsageError (PackageMissing, ConfigError, ModelNotUsable, DatasetNotUsable, ShardDamaged) before anything is written,
    ModelFailed if the autoencoder gives NaN, WriteFailed if the disk fails. An older page is replaced in one step.
    """
    _require_packages()
    progress = shown(progress)
    _require_page_or_nothing(config.out)
    device = resolve_device(config.device)
    dataset = open_rollouts(config.data, progress)
    vae = load(config.vae, config.autoencoder)
    require_fit(vae, dataset, config.vae, "give the rollouts that it was trained on")
    rnn = _mdn_rnn(config, vae, dataset)
    excerpts = read_excerpts(
        dataset,
        Coder(vae.model.to(device), device),
        kinds(dataset, read_training(config.vae)),
        config.episodes,
        config.frames,
        progress,
    )
    vae.model.cpu()
    _require_finite(config, excerpts)
    decoder = _decoder(config, vae.model, excerpts)
    page, excerpts = _largest_page(config, vae, dataset, excerpts, decoder, rnn)
    publish(config.out, page)
    report = _report(config, page, excerpts, decoder, rnn)
    progress.event("finished", f"view: {report.frames} frames of {report.episodes} episodes, {config.out}", out=config.out)
    return report


def _require_packages() -> None:
    if importlib.util.find_spec("jinja2") is None:
        what = "a page needs jinja2, which is not installed"
        raise PackageMissing(what, remedy="pip install 'worldmodel_v[eval]'")


def _require_page_or_nothing(out: Path) -> None:
    """Raise ConfigError unless there is a folder for the page, and no file but an older page in its place."""
    require_folder_of(out, field="out", got=out)
    if not files.exists(out):
        return
    with files.open_stream(out) as file:
        if file.read(len(MARK)) != MARK:
            what = "is there and is no page of wm-view, so it is not replaced"
            raise ConfigError(what, field="out", got=out, remedy="give a new file")


def _require_finite(config: ViewConfig, excerpts: Sequence[Excerpt]) -> None:
    """Raise ModelFailed, naming the first episode, unless every latent is finite."""
    for excerpt in excerpts:
        for name, values in excerpt.latents.items():
            if not np.isfinite(values).all():
                what = f"{name} is NaN or infinite in episode {excerpt.episode}; its weights are not usable"
                raise ModelFailed(what, where=config.vae, remedy="train it again, with a lower learning rate")


def _mdn_rnn(config: ViewConfig, vae: Trained[Autoencoder], dataset: Rollouts) -> MdnRnn | None:
    if config.rnn is None:
        return None
    if not isinstance(vae.model, GaussianAutoencoder):
        what = f"dreams of latents with a Gaussian for each number, which {vae.model.kind} does not have"
        raise ConfigError(what, field="rnn", got=config.rnn, remedy="leave it out")
    latent_dim = vae.model.latent_dim
    return read_mdn_rnn(config.rnn, vae_sha256=vae.sha256, latent_dim=latent_dim, actions=dataset.schema.actions)


def _decoder(config: ViewConfig, model: Autoencoder, excerpts: Sequence[Excerpt]) -> PageDecoder | str:
    """The decoder for the page, or why it cannot be there; raises ConfigError if the dream needs it."""
    try:
        decoder = page_decoder(model, excerpts)
        if (size := len(decoder.weights.packed(decoder.precision)["data"])) > MAX_DECODER_BYTES:
            raise NotConvertible(f"its decoder would take {size / 1e6:.1f} MB, for which a page has no room")
        return decoder
    except NotConvertible as error:
        if config.rnn is None:
            return str(error)
        what = f"a dream needs the decoder in the page, which is not possible: {error}"
        raise ConfigError(what, field="rnn", got=config.rnn, remedy="leave it out") from None


def _largest_page(
    config: ViewConfig,
    vae: Trained[Autoencoder],
    dataset: Rollouts,
    excerpts: list[Excerpt],
    decoder: PageDecoder | str,
    rnn: MdnRnn | None,
) -> tuple[bytes, list[Excerpt]]:
    """The page, with as many rows of the excerpts as it has room for, and these; raises ConfigError if that is too few."""
    about = _about(config, vae, dataset, excerpts, decoder, rnn)
    fill = dataset.schema.action.fill_value
    while True:
        episodes = [_episode(vae.model, decoder, each, np.nan if fill is None else float(fill)) for each in excerpts]
        page = render({**about, "episodes": episodes})
        if len(page) <= MAX_BYTES:
            return page, excerpts
        taken = sum(len(text) for each in episodes for text in [*each["recorded"], *each["decoded"], each.get("mu", "")])
        excerpts = shortened(excerpts, MARGIN * (MAX_BYTES - len(page) + taken) / taken)
        if min(map(len, excerpts)) < MIN_ROWS:
            what = f"{len(excerpts)} episodes are too many for a page of {MAX_BYTES // 10**6} MB"
            raise ConfigError(what, field="episodes", got=config.episodes, remedy="ask for fewer, or collect smaller frames")


def _episode(model: Autoencoder, decoder: PageDecoder | str, excerpt: Excerpt, fill: float) -> dict[str, Any]:
    if isinstance(decoder, str):
        return excerpt.for_page(fill, with_decoded=True)
    assert isinstance(model, GaussianAutoencoder)
    return excerpt.for_page(fill, with_decoded=False) | latents_for_page(model, excerpt)


def _about(
    config: ViewConfig,
    vae: Trained[Autoencoder],
    dataset: Rollouts,
    excerpts: Sequence[Excerpt],
    decoder: PageDecoder | str,
    rnn: MdnRnn | None,
) -> dict[str, Any]:
    """All that the page says, without the episodes."""
    height, width = vae.model.config.frame_shape
    recorded = np.concatenate([each.action for each in excerpts])
    return {
        "title": printable(dataset.spec.env),
        "facts": {name: printable(text) for name, text in _facts(config, vae, dataset).items()},
        "height": height,
        "width": width,
        "stripFrames": frames_in_a_strip(height),
        "errorColours": INFERNO.astype(int).tolist(),
        "actions": actions_for_page(dataset.spec.env, dataset.schema, recorded),
        "latents": {"absent": decoder} if isinstance(decoder, str) else decoder.for_page(),
        "dream": _dream(rnn) if rnn else None,
    }


def _facts(config: ViewConfig, vae: Trained[Autoencoder], dataset: Rollouts) -> dict[str, str]:
    return {
        "autoencoder": f"{vae.model.kind}, {config.vae}",
        "its SHA-256": vae.sha256,
        "data": ", ".join(map(str, config.data)),
        "environment": dataset.spec.env,
        "policy": dataset.spec.policy,
        "MDN-RNN": str(config.rnn or "none"),
    }


def _dream(rnn: MdnRnn) -> dict[str, Any]:
    weights = Weights()
    about = rnn.for_page(weights)
    return {**about, "weights": weights.packed(weights.smallest())}


def _report(
    config: ViewConfig, page: bytes, excerpts: Sequence[Excerpt], decoder: PageDecoder | str, rnn: MdnRnn | None
) -> ViewReport:
    return ViewReport(
        out=config.out,
        bytes=len(page),
        episodes=len(excerpts),
        frames=sum(map(len, excerpts)),
        latents=f"left out: {decoder}" if isinstance(decoder, str) else f"weights in {decoder.precision}",
        dream="shown" if rnn else f"left out: no {option('rnn')} was given",
    )
