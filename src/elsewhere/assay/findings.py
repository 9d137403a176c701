"""Findings kept in a result's folder, as JSON: the report shows what was explained."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from elsewhere import catalogue
from elsewhere.explainer import Explainer, Figure, Finding, Image
from elsewhere.identity import digest, identity, reference
from elsewhere.places import listing
from elsewhere.run import write_whole

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


def name_of(explainer: Explainer) -> str:
    """Return the catalogued name of an explainer, or its class name."""
    target = reference(type(explainer))
    return next((n for n, e in catalogue.entries("explainers").items() if e.target == target), type(explainer).__name__)


def keep(result: Result, explainer: Explainer, finding: Finding) -> None:
    """Write a finding; the explainer with other fields is another finding."""
    from elsewhere.assay.result import key_of

    content = {
        "name": name_of(explainer),
        "fields": identity(explainer),
        "state": key_of(result),
        "sentence": finding.sentence,
        "limits": finding.limits,
        "tables": {title: json.loads(frame.to_json(orient="split", index=False, double_precision=15)) for title, frame in finding.tables.items()},
        "figures": {title: _figure_json(figure) for title, figure in finding.figures.items()},
    }
    mine = result.folder / "findings" / f"{digest(identity(explainer))}.json"
    write_whole(mine, json.dumps(content).encode())
    for path, other in list(_contents(result)):
        if path != mine and _superseded(other["fields"], identity(explainer)):
            path.unlink()


def _superseded(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a finding is that of the same explainer and fields, by another revision of its code."""
    before, now = ({k: v for k, v in fields.items() if k != "revision"} for fields in (old, new))
    return before == now and _revision(old) != _revision(new)


def _revision(fields: dict[str, Any]) -> int:
    return int(fields.get("revision", 1))


def kept(result: Result) -> dict[str, Finding]:
    """Return the findings of a folder by name."""
    from elsewhere.assay.result import key_of

    found: dict[str, Finding] = {}
    for path, content in _contents(result):
        stale = content["state"] != key_of(result)
        name = content["name"] if content["name"] not in found else f"{content['name']} ({path.stem[:6]})"
        tables = {title: pd.DataFrame(**table) for title, table in content["tables"].items()}
        limits = content["limits"] + (" Trials have finished since this was explained: explain again." if stale else "")
        found[name] = Finding(content["sentence"], tables, {t: _figure_of(f) for t, f in content["figures"].items()}, limits)
    return found


def _contents(result: Result) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = result.folder / "findings"
    for name in sorted(n for n in listing(folder) if n.endswith(".json") and not n.startswith(".")):
        yield folder / name, json.loads((folder / name).read_text())


def standing(result: Result) -> list[str]:
    """Explain with every explainer that the tasks name and that has not explained this state; return why some did not."""
    from elsewhere.assay.result import key_of, make_explainer
    from elsewhere.errors import UserError

    wanted = list(dict.fromkeys(n for a in result._about_tasks() for n in a.get("findings", [])))
    state = key_of(result)
    have = {(c["name"], _revision(c["fields"])) for _, c in _contents(result) if c["state"] == state}
    refused = []
    for name in wanted:
        explainer = make_explainer(name, {})
        if (name, _revision(identity(explainer))) in have:
            continue
        try:
            result.explain(explainer)
        except UserError as error:
            refused.append(f"{name}: {error}")
    return refused


def _figure_json(figure: Figure) -> dict[str, Any]:
    if isinstance(figure, Image):
        text = figure.content if isinstance(figure.content, str) else base64.b64encode(figure.content).decode()
        return {"image": text, "alt": figure.alt, "svg": isinstance(figure.content, str)}
    return {"plotly": json.loads(figure.to_json() or "{}")}


def _figure_of(content: dict[str, Any]) -> Figure:
    if "image" in content:
        return Image(content["image"] if content["svg"] else base64.b64decode(content["image"]), content["alt"])
    import plotly.graph_objects as go

    return go.Figure(content["plotly"], skip_invalid=True)
