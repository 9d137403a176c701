"""Pictures of what a study's domains look like, kept in its folder while the data are at hand.

A report draws them from there: writing the report of somebody's folder runs none of the code that the folder names.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import numpy as np

from elsewhere.explainer import Image
from elsewhere.pictures import contact_sheet, is_picture
from elsewhere.places import listing
from elsewhere.run import write_whole

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

PICTURES, MOST_SHEETS = 8, 48
FILE = "previews.json"


def keep(result: Result) -> None:
    """Write a few examples of each domain, where examples are pictures; once per folder."""
    trials = result.trials()
    if FILE in listing(result.folder) or not len(trials) or result.study is None:
        return
    first = trials[trials.status == "done"].drop_duplicates("task")
    sheets: list[dict[str, str]] = []
    without: set[str] = set()  # a task of a name that has no pictures is made once, not for each of its options
    for trial in first.itertuples():
        if trial.task_name in without:
            continue
        task = result.task(str(trial.trial))
        if not is_picture(task.source.train):
            without.add(str(trial.task_name))
            continue
        for domain in task.domains[: MOST_SHEETS - len(sheets)]:
            data = domain.load()
            if is_picture(data):
                shown = [np.asarray(data.preview(int(row))) for row in np.sort(np.random.default_rng(0).permutation(len(data))[:PICTURES])]
                name = domain.name + (f" ({trial.task})" if len(first) > 1 else "")
                image = contact_sheet(shown, f"{len(shown)} examples of {name}")
                sheets.append({"name": name, "alt": image.alt, "png": base64.b64encode(bytes(image.content)).decode()})  # type: ignore[arg-type]
    if sheets:
        write_whole(result.folder / FILE, json.dumps(sheets).encode())


def kept(result: Result) -> dict[str, Image]:
    """Return the sheets of a folder by domain."""
    if FILE not in listing(result.folder):
        return {}
    try:
        return {s["name"]: Image(base64.b64decode(s["png"]), s["alt"]) for s in json.loads((result.folder / FILE).read_text())}
    except (ValueError, KeyError, TypeError):
        return {}
