"""`report.html`: one page with everything in it, that needs no network and no script.

Pictures are data URIs, charts are inline SVG, the style is `report.css` of this package. Every text that comes from outside
goes through `html.escape`.
"""

import base64
import importlib.resources
from dataclasses import dataclass
from html import escape
from typing import Any

from worldmodel_v.autoencoders.base import readable_figures
from worldmodel_v.evaluate import verdicts
from worldmodel_v.evaluate.analysis import Fidelity, Findings, GaussianFindings
from worldmodel_v.evaluate.charts import bar_chart
from worldmodel_v.evaluate.figures import Figure
from worldmodel_v.evaluate.verdicts import Verdict

WORDS = {"good": "Good", "fair": "Fair", "bad": "Poor"}
NAMES = {"tsne": "A map of the latents", "edits": "Edits along a factor"}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What an evaluation speaks of."""

    vae: str
    kind: str
    """Which autoencoder it is."""

    data: str
    env: str
    policy: str
    heldout_episodes: int
    training_steps: int
    trained_on_this: bool
    """Whether the VAE was trained on the other episodes of these very rollouts."""

    identity: dict[str, Any]
    model: dict[str, Any]
    versions: dict[str, str]


def render(findings: Findings, figures: list[Figure], left_out: dict[str, str], provenance: Provenance) -> str:
    """The page, as HTML."""
    by_name = {figure.name: figure for figure in figures}
    sections = [
        _in_short(findings),
        *_figures(by_name, "reconstructions", extra=_episodes(findings)),
        _latents(findings),
        *_figures(by_name, "prior", "interpolations", "traversals", "tsne"),
        _disentanglement(findings),
        *_figures(by_name, "edits", extra=_attributes(findings)),
        *_figures(by_name, "inpainting"),
        *_figures(by_name, "anomalies", extra=_anomalies(findings)),
        _left_out(left_out, findings),
        _provenance(provenance),
    ]
    return _page(_header(findings, provenance), "\n".join(section for section in sections if section))


def _page(header: str, sections: str) -> str:
    style = importlib.resources.files("worldmodel_v.evaluate").joinpath("report.css").read_text()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>What the latents are worth</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
{header}
<main class="column">
{sections}
</main>
<footer class="column">Written by wm-eval. The figures behind this page are in metrics.json, the pictures in PNG files
beside it. Good, fair and poor are rules of thumb for frames of a world model; the numbers are what was measured.</footer>
</body>
</html>
"""


def _header(findings: Findings, provenance: Provenance) -> str:
    fidelity = findings.fidelity
    trained = "the episodes that its training held out" if provenance.trained_on_this else "rollouts that it was not trained on"
    tiles = [
        _tile("PSNR", f"{fidelity.psnr_db:.1f}", "dB", _beside_zoom(findings.without_zoom, "psnr_db", ".1f")),
        _tile("SSIM", f"{fidelity.ssim:.3f}", "", _beside_zoom(findings.without_zoom, "ssim", ".3f")),
        *(_gaussian_tiles(findings) if isinstance(findings, GaussianFindings) else _own_tiles(findings)),
    ]
    return f"""<header class="column">
<p class="kicker">{escape(provenance.env)}</p>
<h1>What the latents are worth</h1>
<p class="lead">The autoencoder <code>{escape(provenance.vae)}</code> ({escape(provenance.identity["vae_sha256"][:12])}) on
{findings.heldout["num_frames"]:,} frames of {len(findings.episodes)} episodes of <code>{escape(provenance.data)}</code>:
{trained}.</p>
<dl class="tiles">
{"".join(tiles)}
</dl>
</header>"""


def _gaussian_tiles(findings: GaussianFindings) -> list[str]:
    bound, active, size = findings.bound, int(findings.heldout["active_units"]), int(findings.heldout["latent_dim"])
    return [
        _tile("KL", f"{bound.kl_nats:.1f}", "nats", "what the latent says about a frame"),
        _tile("ELBO", f"{bound.elbo_nats:,.0f}".replace("-", "−"), "nats", "every constant included"),
        _tile("Bits per dim.", f"{bound.bits_per_dimension:.3f}", "", _bits_note(bound.sigma)),
        _tile("Active latents", f"{active}", f"of {size}", "whose mean varies"),
    ]


def _own_tiles(findings: Findings) -> list[str]:
    """The figures of an autoencoder that this package does not know."""
    own = {name: value for name, value in findings.heldout.items() if name not in ("num_frames", "psnr_db", "squared_error")}
    return [_tile(name, value, "", "as the autoencoder says") for name, value in readable_figures(own).items()]


def _tile(name: str, value: str, unit: str, beside: str) -> str:
    return (
        f'<div class="tile"><dt>{escape(name)}</dt><dd><span class="value">{escape(value)} '
        f'<span class="unit">{escape(unit)}</span></span><div class="beside">{escape(beside)}</div></dd></div>\n'
    )


def _beside_zoom(without_zoom: Fidelity | None, name: str, form: str) -> str:
    if without_zoom is None:
        return "averaged over frames"
    return f"{getattr(without_zoom, name):{form}} without the zoom-in"


def _bits_note(sigma: float | None) -> str:
    return "as binary pixels" if sigma is None else f"at 256 levels, σ = {sigma:.3g}"


def _in_short(findings: Findings) -> str:
    sentences = [verdicts.on_fidelity(findings.fidelity.psnr_db, findings.fidelity.ssim)]
    if isinstance(findings, GaussianFindings):
        sentences += _on_latents(findings)
    items = "\n".join(f"<li>{_verdict(sentence)}</li>" for sentence in sentences)
    return f'<section id="short">\n<h2>In short</h2>\n<ul class="short">\n{items}\n</ul>\n</section>'


def _on_latents(findings: GaussianFindings) -> list[Verdict]:
    sentences = [
        verdicts.on_activity(int(findings.heldout["active_units"]), int(findings.heldout["latent_dim"])),
        verdicts.on_prior(findings.aggregated),
    ]
    if (on_bound := verdicts.on_bound(findings.bound)) is not None:
        sentences.append(on_bound)
    if edited := [attribute for attribute in findings.attributes if attribute.achieved is not None]:
        sentences.append(verdicts.on_edits(edited))
    return sentences


def _figures(by_name: dict[str, Figure], *names: str, extra: str = "") -> list[str]:
    return [_figure(by_name[name], extra) for name in names if name in by_name]


def _figure(figure: Figure, extra: str) -> str:
    height, width = figure.picture.shape[:2]
    source = "data:image/png;base64," + base64.b64encode(figure.png).decode()
    return f"""<section id="{figure.name}">
<h2>{escape(figure.title)}</h2>
<figure>
<figcaption class="look">{escape(figure.look_for)}</figcaption>
<div class="scroll"><img src="{source}" alt="{escape(figure.alt)}" width="{width}" height="{height}"></div>
</figure>
{_verdict(figure.verdict)}
{extra}</section>"""


def _verdict(verdict: Verdict) -> str:
    return f'<p class="verdict {verdict.tone}"><b>{WORDS[verdict.tone]}</b><span>{escape(verdict.text)}</span></p>'


def _episodes(findings: Findings) -> str:
    episodes = findings.episodes
    if len(episodes) < 2:
        return ""
    chart = bar_chart(
        [item.fidelity.psnr_db for item in episodes],
        [str(item.episode) for item in episodes],
        unit="dB",
        describes=f"PSNR of {len(episodes)} episodes, from {episodes[0].fidelity.psnr_db:.1f} "
        f"to {episodes[-1].fidelity.psnr_db:.1f} dB",
    )
    heading = "<h3>PSNR of each episode, worst first (dB, by episode number)</h3>"
    return f'{heading}\n<figure class="scroll">{chart}</figure>\n'


def _latents(findings: Findings) -> str:
    if not isinstance(findings, GaussianFindings):
        return ""
    values, active = findings.kl_per_latent, findings.active
    order = sorted(range(len(values)), key=lambda i: -values[i])
    chart = bar_chart(
        [values[i] for i in order],
        [str(i) for i in order],
        muted=[not active[i] for i in order],
        unit="nats",
        describes=f"KL of each of {len(values)} latents, from {max(values):.2f} to {min(values):.2f} nats",
    )
    aggregated = findings.aggregated
    correlation = aggregated.max_correlation
    beside = "" if correlation is None else f", and the largest correlation of two is {correlation:.2f}"
    return f"""<section id="latents">
<h2>What each latent says</h2>
<figure>
<figcaption class="look">KL of each latent from the prior, averaged over frames, in nats; the number below is the latent's.
A latent near 0 says nothing and is silent (grey); one much higher than the rest carries most of the picture.</figcaption>
<div class="scroll">{chart}</div>
</figure>
{_verdict(verdicts.on_activity(int(findings.heldout["active_units"]), int(findings.heldout["latent_dim"])))}
<p class="look after">Over all frames together, the latents' means are at most {aggregated.max_abs_mean:.2f} from 0,
their variances are {aggregated.min_variance:.2f} to {aggregated.max_variance:.2f} (the prior's: 1){beside}.</p>
{_latent_table(findings, order)}</section>"""


def _latent_table(findings: GaussianFindings, order: list[int]) -> str:
    found = findings.disentanglement
    rows = []
    for i in order:
        top = [found.top_factors[i].factor, f"{found.top_factors[i].correlation:+.2f}"] if found else []
        rows.append(
            [
                f"z{i}",
                f"{findings.kl_per_latent[i]:.3f}",
                f"{findings.aggregated.mean[i]:+.2f}",
                f"{findings.aggregated.variance[i]:.2f}",
                "yes" if findings.active[i] else "silent",
                *top,
            ]
        )
    headings = ["latent", "#KL (nats)", "#mean", "#variance", "active", *(["top factor", "#correlation"] if found else [])]
    return f"<details><summary>All {len(order)} latents as a table</summary>{_table(headings, rows)}</details>\n"


def _disentanglement(findings: Findings) -> str:
    found = findings.disentanglement if isinstance(findings, GaussianFindings) else None
    if found is None:
        return ""
    rows = [
        [item.factor, f"z{item.latent}", f"{item.r2:.2f}", f"{item.sap:.3f}", f"z{item.mig_latent}", f"{item.mig:.3f}"]
        for item in sorted(found.factors, key=lambda item: -item.r2)
    ]
    table = _table(["factor", "best latent", "#its R²", "#SAP gap", "most informative", "#MIG gap"], rows)
    return f"""<section id="disentanglement">
<h2>Latents and the world's factors</h2>
<p class="look">For each recorded factor, how well its best single latent predicts it, and how far that one is ahead of
the second best: by explained variance (SAP) and by mutual information over the factor's entropy (MIG). 1 would be one latent
for one factor.</p>
<div class="scroll">{table}</div>
{_verdict(verdicts.on_disentanglement(found))}
</section>"""


def _attributes(findings: Findings) -> str:
    if not isinstance(findings, GaussianFindings) or not findings.attributes:
        return ""
    rows = [[item.factor, f"{round(item.r2, 2) + 0.0:.2f}", _meter(item.r2)] for item in findings.attributes]
    table = _table(["factor", "#R²", "!"], rows)
    return (
        f"<h3>How well a linear model reads each factor from all latents (R² on episodes it was not fitted to)</h3>\n{table}\n"
    )


def _anomalies(findings: Findings) -> str:
    rows = [
        [str(item.episode), str(item.row), f"{item.squared_error:.1f}", f"{item.z_score:+.1f}"]
        for item in findings.anomalies.standing_out
    ]
    table = _table(["#episode", "#row", "#squared error", "#σ above the mean"], rows)
    mean = f"The mean squared error of a frame is {findings.anomalies.mean_error:.1f} ± {findings.anomalies.std_error:.1f}."
    return f"<details><summary>Where they are</summary><p>{mean}</p>{table}</details>\n"


def _left_out(left_out: dict[str, str], findings: Findings) -> str:
    reasons = {NAMES.get(name, name): reason for name, reason in left_out.items()}
    if findings.constant_factors:
        names = ", ".join(findings.constant_factors)
        reasons[f"The factors {names}" if len(findings.constant_factors) > 1 else f"The factor {names}"] = (
            "constant over these frames, so that nothing can be said of them"
        )
    if not reasons:
        return ""
    items = "\n".join(f"<li>{escape(name)}: {escape(reason)}.</li>" for name, reason in reasons.items())
    return f'<section id="left-out">\n<h2>What is left out, and why</h2>\n<ul>\n{items}\n</ul>\n</section>'


def _provenance(provenance: Provenance) -> str:
    identity = provenance.identity
    facts = {
        "autoencoder": f"{provenance.kind}, {provenance.vae}, {provenance.training_steps:,} steps",
        "its SHA-256": identity["vae_sha256"],
        "model": ", ".join(f"{name} {value}" for name, value in provenance.model.items()),
        "data": f"{provenance.data}, {identity['data_rows']:,} rows, {provenance.heldout_episodes} episodes held out",
        "their spec hash": identity["data_spec_hash"],
        "environment, policy": f"{provenance.env}, {provenance.policy}",
        "held out": f"every {identity['holdout_every']}th episode",
        "trained on the others": "yes" if provenance.trained_on_this else "no: trained on other rollouts",
        "seed": str(identity["seed"]),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    items = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<section id="provenance">\n<h2>What this page speaks of</h2>\n<dl class="facts">\n{items}\n</dl>\n</section>'


def _table(headings: list[str], rows: list[list[str]]) -> str:
    """A table; headings that begin with # are of columns of numbers, with ! of columns of HTML."""
    classes = [{"#": ' class="number"', "!": ' class="meter"'}.get(heading[0], "") for heading in headings]
    head = "".join(f"<th{kind}>{escape(heading.lstrip('#!'))}</th>" for heading, kind in zip(headings, classes, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{cell if 'meter' in kind else escape(cell)}</td>" for cell, kind in zip(row, classes, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _meter(share: float) -> str:
    return (
        f'<span class="bar-ground"><span class="bar-fill" style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></span></span>'
    )
