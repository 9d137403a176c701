"""One self-contained HTML page: no network, readable in the dark, usable by keyboard and screen reader."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elsewhere.errors import UserError
from elsewhere.run import write_whole

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


def write(result: Result, path: Path) -> Path:
    """Write the report of a result, finished or not, and return its path."""
    from elsewhere.assay.report.sections import context

    html = render(context(result))
    try:
        write_whole(path, html.encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def render(told: dict[str, Any]) -> str:
    """Return the page; every text is escaped, figures travel as JSON that holds no markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("elsewhere.assay", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    here = files("elsewhere.assay.report")
    parts = {name: here.joinpath(file).read_text() for name, file in (("css", "page.css"), ("js", "page.js"), ("plotly", "plotly-cartesian.min.js"))}
    return environment.get_template("page.html.j2").render(**told, **parts, safe_json=safe_json)


def safe_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: nothing in it can end the element or open markup."""
    text = json.dumps(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
