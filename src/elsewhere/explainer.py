"""Explainers and what they return: one sentence, tables, figures, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from elsewhere.assay.result import Result


@dataclass(frozen=True)
class Image:
    """A picture that is no plotly figure: SVG text or PNG bytes, with a description for those who cannot see it."""

    content: str | bytes
    alt: str


Figure = Union["go.Figure", Image]


@dataclass(frozen=True)
class Finding:
    """What an explainer found.

    Args:
        sentence: what a manager can read.
        tables: data frames by title.
        figures: plotly figures or ``Image`` by title.
        limits: what this method cannot say.
    """

    sentence: str
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    limits: str = ""


class Explainer:
    """Subclass as a dataclass. Thin: the computing is a plain function on arrays that anyone can call."""

    cost: ClassVar[Literal["free", "minutes", "long"]] = "free"
    revision: ClassVar[int] = 1

    def applies(self, result: Result) -> str | None:
        """Return None where it can explain this result, else the reason why not."""
        return None

    def explain(self, result: Result) -> Finding:
        raise NotImplementedError(f"{type(self).__name__} has no explain")


def plain(text: Any) -> str:
    """Return text as plotly shall show it: plotly reads labels as markup, names are not markup.

    Examples:
        >>> plain("<b>Ohio</b>")
        '&lt;b&gt;Ohio&lt;/b&gt;'
    """
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
