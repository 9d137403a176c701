"""The command. Every command is a few lines over the Python API; this is the only place that prints."""

from __future__ import annotations

import functools
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from elsewhere import catalogue
from elsewhere.errors import UserError, one_line
from elsewhere.places import place

if TYPE_CHECKING:
    from elsewhere.assay.engine import Progress
    from elsewhere.assay.result import Result

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help="Will it hold elsewhere, why not, and what helps?")
_TYPES: dict[str, Any] = {"text": str | None, "list": list[str] | None, "int": int | None, "float": float | None, "flag": bool}


def _with_options(kind: str, of: Any = "options") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that entries of the catalogue declare; it gets those that were set as ``options``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        declared = {o.name.replace("-", "_"): o for o in catalogue.options(kind, of).values()}

        @functools.wraps(function)
        def command(**given: Any) -> None:
            told = {name: given.pop(name) for name in declared}
            function(**given, options={k: v for k, v in told.items() if v is not None and v is not False and v != []})

        own = inspect.signature(function, eval_str=True).parameters
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if o.type == "flag" else None,
                annotation=Annotated[_TYPES[o.type], typer.Option(f"--{o.name}", help=o.help, show_default=False)],
            )
            for name, o in declared.items()
        ]
        parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values() if p.name != "options"), *more]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        del command.__wrapped__
        return command

    return decorate


@app.command(epilog="Examples:  elsewhere assay penguins  |  elsewhere assay people.csv --predict income --domain state  |  "
             "elsewhere assay photos/ --learner cnn --learner coral  |  elsewhere assay unseen-interventions  |  elsewhere assay sprites:split=extrapolation --learner cnn  |  "
             "elsewhere assay study.toml --out results/mine --workers 2  |  elsewhere assay study.toml --engine ray --address auto --out s3://bucket/mine")  # fmt: skip
@_with_options("readers")
def assay(
    what: Annotated[str, typer.Argument(help="a table (CSV, Parquet), a folder of pictures, a study file, or the name of a study or task")],
    learner: Annotated[list[str] | None, typer.Option(help="NAME or NAME:field=value,…; may be given again")] = None,
    seeds: Annotated[int | None, typer.Option(help="number of seeds [default: 3]")] = None,
    out: Annotated[str | None, typer.Option(help="folder of the result, or a URL (s3://…); given again, only what is missing runs [default: results/<name>-<time>]")] = None,
    workers: Annotated[int, typer.Option(help="processes on this machine")] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray: trials run on a Ray cluster")] = "local",
    address: Annotated[str | None, typer.Option(help="of the Ray cluster; auto finds the one of this machine [default: one is started here]")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="run failed trials again")] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="exit 1 only when an expectation fails or nothing finished")] = False,
    data: Annotated[Path | None, typer.Option(help="where named data lie [default: ELSEWHERE_DATA, else a cache folder]")] = None,
    reader: Annotated[str | None, typer.Option(help="the reader, where several take the path")] = None,
    report: Annotated[bool, typer.Option(help="write report.html")] = True,
    options: Any = None,
) -> None:
    """Train on the data you have, measure at home and in every other place you name."""
    from elsewhere.assay.api import command_line, default_folder, run_study, study_from
    from elsewhere.assay.findings import standing
    from elsewhere.assay.plan import doubts_of

    _data_root(data)
    study = study_from(what, learner or (), seeds, (), reader, options)
    folder = place(out) if out else default_folder(what)
    if engine not in ("local", "ray"):
        raise UserError(f"--engine must be local or ray, not {engine!r}")
    if address is not None and engine != "ray":
        raise UserError("--address is for --engine ray")
    executor = None
    if engine == "ray":
        from elsewhere.assay.cluster import RayExecutor

        executor = RayExecutor(address, study.threads)
    _show_plan(study, workers if executor is None else executor.workers)
    try:
        with _Bar() as bar:
            result = run_study(study, folder, workers, retry, bar, executor, command=command_line(sys.argv[1:]))
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; what is finished is kept in {folder}: give the same command with --out {folder} to go on", err=True)
        raise typer.Exit(130) from None
    finally:
        if executor is not None:
            executor.shutdown()
    refused = standing(result) if len(result.trials()) else []
    _tell(result, refused, doubts_of(study))
    if report:
        typer.echo(f"report: {result.report()}")
    raise typer.Exit(_verdict(result, lenient))


@app.command(epilog="Examples:  elsewhere fit people.csv --predict income --learner mlp --out model/  |  "
             "elsewhere fit digits/shifts --learner cnn:steps=2000 --out model/  |  "
             "elsewhere fit screen.parquet --intervention perturbation --out model/")  # fmt: skip
@_with_options("readers")
def fit(
    what: Annotated[str, typer.Argument(help="a table (CSV, Parquet) or the name of a task")],
    out: Annotated[Path, typer.Option(help="the folder of the model; a training that was cut off goes on when the same command is given again")],
    learner: Annotated[str | None, typer.Option(help="NAME or NAME:field=value,… [default: the last of those the data come with]")] = None,
    seed: Annotated[int, typer.Option(help="of the training and of what a task draws")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")] = "auto",
    precision: Annotated[str, typer.Option(help="32, 16-mixed, bf16-mixed, …")] = "32",
    threads: Annotated[int | None, typer.Option(help="of native libraries [default: as they choose]")] = None,
    data: Annotated[Path | None, typer.Option(help="where named data lie [default: ELSEWHERE_DATA, else a cache folder]")] = None,
    reader: Annotated[str | None, typer.Option(help="the reader, where several take the path")] = None,
    options: Any = None,
) -> None:
    """Fit one learner and keep it as a model; a table is fitted on all its rows unless --source restricts it."""
    from elsewhere.assay.engine import held_to
    from elsewhere.model import fit as fit_model
    from elsewhere.run import Run, first_process

    _data_root(data)
    try:
        with held_to(threads):
            model = fit_model(what, learner, out=out, seed=seed, reader=reader, run=Run(device=device, precision=precision, threads=threads or 1), **options)
    except KeyboardInterrupt:
        typer.echo("\nstopped; give the same command again to go on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    if (processes := sys.modules.get("elsewhere.processes")) is not None:
        processes.leave()
    if first_process():
        for line in (model.about.get("reads") or {}).get("said", []):
            typer.echo(line)
        typer.echo(f"fitted {model.about['learner']} on {model.about['examples']:,} examples of {model.about['from']}")
        for home in model.about.get("home", []):
            typer.echo(f"{home['metric']} in {home['domain']}, held out: {home['value']:.3f} (standard error {home['error']:.3f}, n {home['n']:,})")
        typer.echo(f"model: {out}")


@app.command(epilog='Examples:  elsewhere predict model/ new.csv --out predictions.parquet  |  elsewhere predict model/ --do "knock_out_a,knock_out_b" --size 1000 --out predicted.parquet')
@_with_options("readers", "asks")
def predict(
    model: Annotated[Path, typer.Argument(help="the folder that elsewhere fit wrote")],
    what: Annotated[str | None, typer.Argument(help="new data of the kind it was fitted on: a table; a picture or a folder of them; none where a question says it all (--do)")] = None,
    out: Annotated[Path | None, typer.Option(help="a .parquet or .csv file [default: the first 20 rows are shown]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")] = "auto",
    options: Any = None,
) -> None:
    """Predict for new data: one row an example, with probabilities; or answer a question."""
    from elsewhere.model import SUFFIXES, Model, write_predictions
    from elsewhere.run import Run

    if out is not None and out.suffix not in SUFFIXES:
        raise UserError(f"--out {out} must end in {', '.join(SUFFIXES)}")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        frame = Model.load(model).predict(what, Run(device=device), **options)
    for line in dict.fromkeys(str(w.message) for w in heard if issubclass(w.category, UserWarning)):
        typer.echo(f"warning: {one_line(line)}", err=True)
    if out is None:
        typer.echo(frame.head(20).to_string(index=False))
        typer.echo(f"{len(frame):,} predictions" + ("; write all with --out predictions.parquet" if len(frame) > 20 else ""))
        return
    write_predictions(frame, out)
    typer.echo(f"{len(frame):,} predictions: {out}")


@app.command(epilog="Example:  elsewhere explain results/mine --with shift-decomposition --exclude cholesterol")
@_with_options("explainers")
def explain(
    folder: Annotated[str, typer.Argument(help="the folder of a result, or its URL")],
    explainer: Annotated[str | None, typer.Option("--with", help="NAME or NAME:field=value,…; without it: what applies, and the free ones run")] = None,
    data: Annotated[Path | None, typer.Option(help="where named data lie")] = None,
    options: Any = None,
) -> None:
    """Say why it does not hold there."""
    from elsewhere.assay.result import Result, make_explainer

    _data_root(data)
    result = Result(folder)
    fields = dict(options)
    if explainer is not None:
        _show_finding(result.explain(make_explainer(explainer, fields)))
    else:
        _explain_all(result, fields)
    typer.echo(f"report: {result.report()}")


def _explain_all(result: Result, fields: dict[str, Any]) -> None:
    """List every explainer, run those that apply and cost nothing, and say which to read."""
    from elsewhere.assay.result import make_explainer

    told = result.explainers().to_dict("records")
    for row in told:
        typer.echo(f"{row['explainer']} ({row['cost']}): {row['says']}" + ("" if row["applies"] else f"\n  does not apply: {row['reason']}"))
    ran, dear = [], []
    for row in told:
        if not row["applies"]:
            continue
        name, options = row["explainer"], {o.name for o in catalogue.entry("explainers", row["explainer"]).options}
        if row["cost"] != "free":
            dear.append(f"elsewhere explain {result.folder} --with {name}   ({row['cost']}: {row['says']})")
            continue
        _show_finding(result.explain(make_explainer(name, {k: v for k, v in fields.items() if k in options})))
        ran.append(name)
    if ran:
        typer.echo(f"read first: {ran[0]}" + (f"; then {', '.join(ran[1:])}" if ran[1:] else ""))
    if dear:
        typer.echo("next, what fits again and takes longer:\n  " + "\n  ".join(dear))


@app.command(epilog="Example:  elsewhere report results/mine --csv tables/")
def report(
    folder: Annotated[str, typer.Argument(help="the folder of a result, or its URL, finished or still being filled")],
    out: Annotated[Path | None, typer.Option(help="where to write the page [default: report.html in the folder]")] = None,
    csv: Annotated[Path | None, typer.Option(help="also write the tables as CSV files into this folder")] = None,
) -> None:
    """Write one self-contained HTML page."""
    from elsewhere.assay.export import write_csv
    from elsewhere.assay.result import Result

    result = Result(folder)
    path = result.report(out)
    for line in result.store.damaged:
        typer.echo(f"warning: {line}", err=True)
    typer.echo(f"report: {path}")
    if csv is not None:
        for written in write_csv(result, csv):
            typer.echo(f"table: {written}")


@app.command("list", epilog="Example:  elsewhere list learners --json")
def list_(
    kind: Annotated[str, typer.Argument(help="learners, tasks, metrics, explainers, studies, readers or networks")],
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Say what there is."""
    entries = catalogue.entries(kind)
    if as_json:
        typer.echo(json.dumps([{"name": n, "help": e.help, "target": e.target} for n, e in sorted(entries.items())], indent=1))
        return
    width = max([len(n) for n in entries] or [0])
    for name, entry in sorted(entries.items()):
        typer.echo(f"{name:<{width}}  {entry.help}")


def _data_root(data: Path | None) -> None:
    if data is not None:
        import os

        if not data.is_dir():
            raise UserError(f"--data {data} is no folder")
        os.environ["ELSEWHERE_DATA"] = str(data)


def _show_plan(study: Any, workers: int) -> None:
    """Say what was inferred, what is doubtful and what will run, before anything runs."""
    from elsewhere.assay.engine import held_to
    from elsewhere.assay.plan import doubts_of, pilot
    from elsewhere.run import duration

    doubts = doubts_of(study)  # a study that cannot run is refused before its plan is shown
    for summary in dict.fromkeys(t.summary for t in study.tasks if t.summary):
        typer.echo(summary)
    for doubt in doubts:
        typer.echo(f"doubt: {one_line(doubt, 1000)}")
    total = len(list(study.crossed()))
    with held_to(study.threads):
        about = f", about {duration(pilot(study) / max(1, workers))}" if total >= 20 else ""
    typer.echo(f"plan: {len(study.tasks)} task{'s' * (len(study.tasks) > 1)} × {len(study.learners)} learners × {len(study.seeds)} seeds = {total} trials{about}")
    labels = [n.label for n in study.learners]
    more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
    seeds = ", ".join(map(str, study.seeds[:8])) + " …" * (len(study.seeds) > 8)
    typer.echo(f"learners: {', '.join(labels[:8])}{more}; seeds: {seeds}")


class _Bar:
    """A progress line on a terminal; nothing but the end elsewhere."""

    def __enter__(self) -> _Bar:
        self.live = sys.stderr.isatty()
        return self

    def __call__(self, progress: Progress) -> None:
        if self.live:
            sys.stderr.write(f"\r\x1b[K{progress}")
            sys.stderr.flush()

    def __exit__(self, *_: Any) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[K")


def _tell(result: Result, refused: list[str], shown: Sequence[str] = ()) -> None:
    """Print what was found; notes that the plan has shown are not said again."""
    for note in result.notes():
        if note not in shown:
            typer.echo(f"note: {one_line(note)}")
    for line in result.store.damaged:
        typer.echo(f"warning: {line}", err=True)
    typer.echo("")
    for sentence in result.summary():
        typer.echo(f"- {one_line(sentence, 1000)}")
    for finding in result.findings().values():
        typer.echo(f"- {one_line(finding.sentence, 2000)}")
    for line in refused:
        typer.echo(f"- {line}")
    try:
        typer.echo(f"\n{result.headline}\n{result.as_text()}\n")
    except UserError:
        pass  # nothing finished: the summary has said why
    for _, verdict in result.verdicts():
        typer.echo(f"expectation: {verdict.sentence}")
    typer.echo(f"result: {result.folder}")


def _show_finding(finding: Any) -> None:
    typer.echo(f"\n{one_line(finding.sentence, 3000)}\n")
    for title, table in finding.tables.items():
        flat = table[[c for c in table.columns if not c.endswith((" low", " high"))]]
        typer.echo(f"{title}\n{flat.head(20).to_string(index=False, max_colwidth=60, float_format=lambda v: f'{v:.3f}')}\n")
    if finding.limits:
        typer.echo(f"limits: {one_line(finding.limits, 1000)}\n")


def _verdict(result: Result, lenient: bool) -> int:
    """Return the exit code: 1 when an expectation fails or cannot be told, or a trial failed; each is named."""
    states = [v.state for _, v in result.verdicts()]
    failed = int((result.trials().status == "failed").sum())
    if lenient:
        return int("fails" in states or failed == len(result.trials()))
    return int(any(s != "holds" for s in states) or failed > 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code; a user's mistake is one line on standard error and code 2."""
    try:
        code = app(args=arguments, standalone_mode=False)
        return int(code or 0)
    except typer.Exit as end:
        return int(end.exit_code)
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        return 130
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        if message:
            typer.echo(f"error: {one_line(message)}{hint}", err=True)
        return 2
    except UserError as error:
        typer.echo(f"error: {one_line(error, 1000)}", err=True)
        return 2


def entry() -> None:
    """The console script."""
    sys.exit(main())
