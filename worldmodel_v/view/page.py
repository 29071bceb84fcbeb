"""The page as HTML: `page.html` with its style, its scripts, and the data as JSON inside of it.

A content security policy allows this very style and these very scripts, by their hashes, and no connection. Text from the data
reaches the page as JSON alone, in which no `<` is left; the scripts write it as text, never as markup.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from worldmodel_v.untrusted import printable
from worldmodel_v.view.packing import as_base64

SCRIPTS = ("data.js", "network.js", "drawing.js", "controls.js", "episodes.js", "latents.js", "dream.js", "main.js")
"""In the order in which they run, as one script."""

MARK = b"<!doctype html>\n<!-- made by wm-view of worldmodel_v -->\n"
"""How every page begins."""


def render(content: dict[str, Any]) -> bytes:
    """The whole page, UTF-8."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("worldmodel_v.view", "parts"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, library = _part("page.css"), _asset("vendor", "tf.js").decode()
    script = "".join(_part(name) for name in SCRIPTS)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(library)} {_hash(script)} 'wasm-unsafe-eval'",
            f"style-src {_hash(style)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = environment.get_template("page.html").render(
        policy=_as_it_is(policy),
        style=_as_it_is(style),
        library=_as_it_is(library),
        script=_as_it_is(script),
        data=_as_it_is(as_json(content)),
        wasm=as_base64(_asset("vendor", "tf.wasm.gz")),
        title=content["title"],
    )
    return MARK + page.encode()


def _as_it_is(text: str) -> Any:
    """A text of this package, or JSON without markup, that the template puts in as it is."""
    import markupsafe

    return markupsafe.Markup(text)


def as_json(content: Any) -> str:
    """JSON that a script element can hold, whatever is in it."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _part(name: str) -> str:
    return _asset("parts", name).decode()


def _asset(*path: str) -> bytes:
    return resources.files("worldmodel_v.view").joinpath(*path).read_bytes()


def _hash(text: str) -> str:
    """Of an element whose content is this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
