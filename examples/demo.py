"""What ``make demo`` shows: penguins across species, then a world whose answer is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import elsewhere as ew
from elsewhere.tables.worlds import true_terms

OUT = Path("results")


def main() -> None:
    print("1. Trained on Adelie penguins, used on Gentoo and Chinstrap: male or female?\n")
    shutil.rmtree(OUT / "demo-penguins", ignore_errors=True)
    penguins = ew.assay("penguins", seeds=10, out=OUT / "demo-penguins")
    tell(penguins)

    print("\n2. A world where the three terms are known: does the decomposition find them?\n")
    shutil.rmtree(OUT / "demo-known-terms", ignore_errors=True)
    world = ew.assay("worlds/known-terms", seeds=3, out=OUT / "demo-known-terms")
    terms = tell(world).tables["Terms"].iloc[0]
    truth, overlap = true_terms(1.0)
    print(f"\n{'':24}{'true':>8}{'found':>8}   95 % interval")
    for name, value in zip(("harder cases", "relation changed", "cases unseen at home"), truth, strict=True):
        print(f"{name:<24}{value:8.3f}{terms[name]:8.3f}   [{terms[f'{name} low']:.3f}, {terms[f'{name} high']:.3f}]")
    print(f"{'overlap':<24}{overlap:8.3f}{terms['overlap']:8.3f}")
    print(f"\nreports: {penguins.report()}\n         {world.report()}")


def tell(result: ew.Result) -> ew.Finding:
    """Print the summary, the table and what the decomposition says."""
    for sentence in (*result.notes(), *result.summary()):
        print(f"- {sentence}")
    print(f"\n{result.headline}\n{result.as_text()}\n")
    finding = result.explain("shift-decomposition")
    print(finding.sentence)
    return finding


if __name__ == "__main__":
    main()
