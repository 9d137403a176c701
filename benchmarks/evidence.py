"""``make evidence``: every bundled study, and what became of its expectations. A study whose data are not here is skipped, and said."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import elsewhere as ew
from elsewhere import catalogue
from elsewhere.assay.api import run_study, study_path


def main() -> int:
    worst = 0
    for name, entry in sorted(catalogue.entries("studies").items()):
        print(f"\n{name}: {entry.help}")
        start = time.perf_counter()
        try:
            result = run_study(ew.read_study(study_path(name)), Path("results") / "evidence" / name, workers=2)
        except ew.UserError as error:
            print(f"  skipped: {error}")
            continue
        for _, verdict in result.verdicts():
            print(f"  {verdict.sentence}")
            worst = max(worst, int(verdict.state != "holds"))
        print(f"  {time.perf_counter() - start:.0f} s; {result.report()}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
