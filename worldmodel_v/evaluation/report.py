"""`report.html`: one page that contains everything and needs no network and no script.

The template `report.html` of this package holds the page's words and markup and escapes every value; this module fills it.
Pictures are data URIs, charts are inline SVG, the style is `report.css`.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worldmodel_v.autoencoders.base import Figures, readable_figures
from worldmodel_v.autoencoders.tokens import CodeUse
from worldmodel_v.evaluation import verdicts
from worldmodel_v.evaluation.analysis import Fidelity, Findings, GaussianFindings, TokenFindings
from worldmodel_v.evaluation.charts import Chart, bar_chart, line_chart
from worldmodel_v.evaluation.curves import Curve
from worldmodel_v.evaluation.factors import ANGLE
from worldmodel_v.evaluation.figures import Figure, on_fidelity
from worldmodel_v.evaluation.scales import readable
from worldmodel_v.evaluation.verdicts import Verdict
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.untrusted import printable
from worldmodel_v.words import counted, figure_in_words

if TYPE_CHECKING:
    import jinja2

MAX_BARS = 64
"""Of the chart of codes, which are those of every so-and-so-many-th rank if there are more."""

WORDS = {"good": "Good", "fair": "Fair", "bad": "Poor", "note": "Note"}
NAMES = {
    "tsne": "A map of the latents",
    "edits": "Edits along a factor",
    "fitted_prior": "Samples from a fitted prior",
    "unlikely": "Frames with unlikely latents",
}
MARKS = {"good": "✓", "fair": "~", "bad": "✗", "note": "i"}
"""Signs beside the words, for people who cannot see the colours."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The autoencoder and the data of an evaluation."""

    vae: str
    kind: str
    """The autoencoder's kind."""

    data: str
    env: str
    policy: str
    heldout_episodes: int
    training_steps: int
    losses: tuple[str, ...]
    """Those beside the autoencoder's own."""

    trained_on_this: bool
    """Whether the VAE was trained on the other episodes of the same rollouts."""

    identity: dict[str, Any]
    model: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    name: str
    value: str
    unit: str
    beside: str
    """The text below it in small letters."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    heading: str
    kind: str = ""
    """number, or meter: a percentage (0 to 100) drawn as a bar; otherwise text."""


@dataclass(frozen=True)
class Table:
    """A table; a row has a value for each column."""

    columns: list[Column]
    rows: Sequence[Sequence[str | float]]


def render(
    findings: Findings,
    figures: list[Figure],
    left_out: dict[str, str],
    provenance: Provenance,
    units: Mapping[str, str],
    curves: list[Curve],
) -> str:
    """The page, as HTML; `units` are those of factors that have one."""
    shown, reasons = {figure.name: figure for figure in figures}, _left_out(left_out, findings)
    return _template().render(
        words=WORDS,
        marks=MARKS,
        contents=_contents(findings, shown, curves, reasons),
        curves=[line_chart(curve.steps, curve.values, title=curve.title) for curve in curves],
        findings=findings,
        figures=shown,
        provenance=provenance,
        in_short=_in_short(findings),
        psnr_chart=_psnr_chart(findings),
        anomaly_table=_anomaly_table(findings),
        left_out=reasons,
        facts=_facts(provenance),
        **(
            _of_a_gaussian(findings, units)
            if isinstance(findings, GaussianFindings)
            else {"gaussian": None, "attribute_table": None}
        ),
        **(_of_tokens(findings.codes) if isinstance(findings, TokenFindings) else {}),
        tiles=[*_fidelity_tiles(findings), *_further_tiles(findings)],
    )


def _contents(
    findings: Findings, figures: Mapping[str, Figure], curves: list[Curve], reasons: Mapping[str, str]
) -> dict[str, str]:
    """The page's sections in their order: name and title."""
    gaussian = isinstance(findings, GaussianFindings)
    factors = isinstance(findings, GaussianFindings) and findings.disentanglement is not None
    sections = {
        "short": "In short",
        "reconstructions": figures["reconstructions"].title,
        "training": "The training" if curves else None,
        "codes": "How the codes are used" if isinstance(findings, TokenFindings) else None,
        "latents": "What each latent says" if gaussian else None,
        **{
            name: figures[name].title
            for name in ("prior", "fitted_prior", "interpolations", "traversals", "tsne")
            if name in figures
        },
        "disentanglement": "Latents and the world's factors" if factors else None,
        **{name: figures[name].title for name in ("edits", "inpainting", "anomalies", "unlikely") if name in figures},
        "left-out": "What is left out, and why" if reasons else None,
        "provenance": "What this page speaks of",
    }
    return {name: title for name, title in sections.items() if title is not None}


def _template() -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("worldmodel_v", "evaluation"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not what macros have made
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["data_uri"] = lambda figure: "data:image/png;base64," + base64.b64encode(figure.png).decode()
    return environment.get_template("report.html")


def _of_a_gaussian(findings: GaussianFindings, units: Mapping[str, str]) -> dict[str, Any]:
    """The parts of the page that are only for Gaussian latents."""
    found = findings.disentanglement
    return {
        "gaussian": findings,
        "kl_chart": _kl_chart(findings),
        "on_activity": _on_activity(findings),
        "latent_table": _latent_table(findings),
        "factor_table": _factor_table(findings),
        "on_disentanglement": found and verdicts.on_disentanglement(found),
        "attribute_table": _attribute_table(findings, units),
    }


def _of_tokens(codes: CodeUse) -> dict[str, Any]:
    """The parts of the page that are only for tokens."""
    return {"codes": codes, "codes_chart": _codes_chart(codes), "on_codes": verdicts.on_codes(codes)}


def _fidelity_tiles(findings: Findings) -> list[Tile]:
    fidelity, without_zoom = findings.fidelity, findings.without_zoom
    return [
        Tile("PSNR", f"{fidelity.psnr_db:.1f}", "dB", _beside_zoom(without_zoom, "psnr_db", ".1f")),
        Tile("SSIM", f"{fidelity.ssim:.3f}", "", _beside_zoom(without_zoom, "ssim", ".3f")),
    ]


def _further_tiles(findings: Findings) -> list[Tile]:
    if isinstance(findings, TokenFindings):
        return _token_tiles(findings.codes)
    if not isinstance(findings, GaussianFindings):  # the figures of an autoencoder that this package does not know
        own = {
            name: value for name, value in findings.heldout.items() if name not in ("num_frames", "psnr_db", "squared_error")
        }
        return _tiles_of(own)
    bound, active, size = findings.bound, int(findings.heldout["active_units"]), int(findings.heldout["latent_dim"])
    return [
        Tile("KL", f"{bound.kl_nats:.1f}", "nats", "what the latent says about a frame"),
        Tile("ELBO", f"{bound.elbo_nats:,.0f}".replace("-", "−"), "nats", "every constant included"),
        Tile("Bits per dim.", f"{bound.bits_per_dimension:.3f}", "", _bits_note(bound.sigma)),
        Tile("Active latents", f"{active}", f"of {size}", "whose mean varies"),
        *_tiles_of(findings.own_figures),
    ]


def _tiles_of(figures: Figures) -> list[Tile]:
    """Figures under the names that the autoencoder gives them: `dead_channels` as "Dead channels"."""
    named = {figure_in_words(name): value for name, value in readable_figures(figures).items()}
    return [Tile(name[:1].upper() + name[1:], value, "", "as the autoencoder says") for name, value in named.items()]


def _token_tiles(codes: CodeUse) -> list[Tile]:
    tokens = f"{codes.num_tokens:,} tokens of {codes.num_values:,} values"
    return [
        Tile("Perplexity", f"{codes.perplexity:.1f}", f"of {codes.num_values:,}", "codes as used, if equally often"),
        Tile("Dead codes", f"{codes.dead_codes:,}", f"of {codes.num_codes:,}", "which no frame uses"),
        Tile("Entropy", f"{codes.entropy_bits:.0f}", "bits", "of a frame's tokens, each by itself"),
        Tile("Capacity", f"{codes.capacity_bits:.0f}", "bits", f"of a frame: {tokens}"),
    ]


def _beside_zoom(without_zoom: Fidelity | None, name: str, form: str) -> str:
    if without_zoom is None:
        return "averaged over frames"
    return f"{getattr(without_zoom, name):{form}} without the zoom-in"


def _bits_note(sigma: float | None) -> str:
    return "as binary pixels" if sigma is None else f"at 256 levels, σ = {255 * sigma:.1f} of them"


def _in_short(findings: Findings) -> list[Verdict]:
    sentences = [on_fidelity(findings)]
    if isinstance(findings, TokenFindings):
        return [*sentences, verdicts.on_codes(findings.codes)]
    if not isinstance(findings, GaussianFindings):
        return sentences
    sentences += [_on_activity(findings), verdicts.on_prior(findings.aggregated, findings.beta)]
    if (on_bound := verdicts.on_bound(findings.bound, is_learned=findings.has_learned_sigma)) is not None:
        sentences.append(on_bound)
    if edited := [attribute for attribute in findings.attributes if attribute.achieved is not None]:
        sentences.append(verdicts.on_edits(edited))
    return sentences


def _on_activity(findings: GaussianFindings) -> Verdict:
    active, size = int(findings.heldout["active_units"]), int(findings.heldout["latent_dim"])
    return verdicts.on_activity(active, size, findings.beta, findings.sizes)


def _psnr_chart(findings: Findings) -> Chart | None:
    episodes = findings.episodes
    if len(episodes) < 2:
        return None
    return bar_chart(
        [item.fidelity.psnr_db for item in episodes],
        [str(item.episode) for item in episodes],
        unit="dB",
        describes=f"PSNR of {counted(len(episodes), 'episode')}, from {episodes[0].fidelity.psnr_db:.1f} "
        f"to {episodes[-1].fidelity.psnr_db:.1f} dB",
    )


def _by_kl(findings: GaussianFindings) -> list[int]:
    """The latents in descending order of KL."""
    return sorted(range(len(findings.kl_per_latent)), key=lambda i: -findings.kl_per_latent[i])


def _kl_chart(findings: GaussianFindings) -> Chart:
    values, order = findings.kl_per_latent, _by_kl(findings)
    return bar_chart(
        [values[i] for i in order],
        [str(i) for i in order],
        muted=[not findings.active[i] for i in order],
        unit="nats",
        describes=f"KL of each of {len(values)} latents, from {max(values):.2f} to {min(values):.2f} nats",
    )


def _codes_chart(codes: CodeUse) -> Chart:
    ranks = evenly_spaced(len(codes.shares), MAX_BARS)
    shares = [100 * codes.shares[rank] for rank in ranks]
    return bar_chart(
        shares,
        [str(rank + 1) for rank in ranks],
        unit="%",
        describes=f"Share of each of {len(codes.shares)} codes in use, from {shares[0]:.2f} to {shares[-1]:.4f} %",
    )


def _latent_table(findings: GaussianFindings) -> Table:
    found, aggregated = findings.disentanglement, findings.aggregated
    columns = [Column("latent"), *(Column(name, "number") for name in ("KL (nats)", "mean", "variance")), Column("active")]
    rows = [
        [
            f"z{i}",
            f"{findings.kl_per_latent[i]:.2f}",
            f"{aggregated.mean[i]:+.2f}",
            f"{aggregated.variance[i]:.2f}",
            "yes" if findings.active[i] else "silent",
            *([found.top_factors[i].factor, found.top_factors[i].strength] if found else []),
        ]
        for i in _by_kl(findings)
    ]
    return Table([*columns, *([Column("top factor"), Column("correlation", "number")] if found else [])], rows)


def _factor_table(findings: GaussianFindings) -> Table | None:
    if findings.disentanglement is None:
        return None
    rows = [
        [item.factor, f"z{item.latent}", f"{item.r2:.2f}", f"{item.sap:.3f}", f"z{item.mig_latent}", f"{item.mig:.3f}"]
        for item in sorted(findings.disentanglement.factors, key=lambda item: -item.r2)
    ]
    by_variance = [Column("best latent"), Column("its R²", "number"), Column("SAP gap", "number")]
    return Table([Column("factor"), *by_variance, Column("most informative"), Column("MIG gap", "number")], rows)


def _attribute_table(findings: GaussianFindings, units: Mapping[str, str]) -> Table | None:
    if not findings.attributes:
        return None
    rows: list[list[str | float]] = [
        [
            item.factor,
            f"{round(item.r2, 2) + 0.0:.2f}".replace("-", "−"),
            100 * min(max(item.r2, 0.0), 1.0),
            readable(math.degrees(item.rms_error), "°")
            if item.factor == ANGLE
            else readable(item.rms_error, units.get(item.factor, "")),
        ]
        for item in findings.attributes
    ]
    return Table([Column("factor"), Column("R²", "number"), Column("", "meter"), Column("typical error", "number")], rows)


def _anomaly_table(findings: Findings) -> Table:
    rows = [
        [str(item.episode), str(item.row), f"{item.value:.1f}", f"{item.z_score:+.1f}"]
        for item in findings.anomalies.standing_out
    ]
    return Table([Column(name, "number") for name in ("episode", "row", "squared error", "SD above the mean")], rows)


def _left_out(left_out: dict[str, str], findings: Findings) -> dict[str, str]:
    """What is not on the page, and why."""
    reasons = {NAMES.get(name, name): reason for name, reason in left_out.items()}
    if findings.constant_factors:
        names = ", ".join(findings.constant_factors)
        reasons[f"The factors {names}" if len(findings.constant_factors) > 1 else f"The factor {names}"] = (
            "constant over these frames, so that nothing can be said of them"
        )
    return reasons


def _facts(provenance: Provenance) -> dict[str, str]:
    identity = provenance.identity
    return {
        "autoencoder": f"{provenance.kind}, {provenance.vae}, {counted(provenance.training_steps, 'step', ',')}",
        "its SHA-256": identity["vae_sha256"],
        "model": ", ".join(f"{name} {_plain(value)}" for name, value in provenance.model.items()),
        **({"losses beside its own": _plain(provenance.losses)} if provenance.losses else {}),
        "data": f"{provenance.data}, {identity['data_rows']:,} rows, held-out episodes: {provenance.heldout_episodes}",
        "their spec_hash": identity["data_spec_hash"],
        "environment, policy": f"{provenance.env}, {provenance.policy}",
        "held out": f"one episode in {identity['holdout_every']}",
        "trained on the others": "yes" if provenance.trained_on_this else "no: trained on other rollouts",
        "seed": str(identity["seed"]),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }


def _plain(value: object) -> str:
    """A setting for people: none of its digits that say nothing, an empty list as none."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)
