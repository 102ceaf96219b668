"""`blockforge space`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blockforge.cli._output import SPACE_HELP, JsonOption, SetOption, console, print_json
from blockforge.figures import format_of, write_figure
from blockforge.files import make_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockforge.compiler import Architecture


def space(
    source: Annotated[str | None, typer.Argument(metavar="SPACE", help=SPACE_HELP, show_default="hybrid")] = None,
    around: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Print the neighbourhood of a spec without holes as a space, to edit."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMITS", help="Upper limits, as in 5GFLOPs or 30Mparams; may be repeated."),
    ] = None,
    draws: Annotated[int, typer.Option(min=10, metavar="N", help="Random networks behind the histograms.")] = 400,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of what is drawn.")] = 0,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Write N different random networks as specs into -o DIR.")
    ] = None,
    fit: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="With --sample: fit widths to this share of the budget, or more."),
    ] = None,
    enumerate: Annotated[
        bool, typer.Option("--enumerate", help="Count the distinct networks; with -o DIR write all.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="PATH", help="A figure (.png, .svg, .pdf), or a folder of specs."),
    ] = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Say how large a space is, what its holes can be, what its networks cost, and how many fit a budget.

    Nothing is built: networks are drawn with equal chances for every value of a hole, and compiled.

    \b
    Examples:
      blockforge space
      blockforge space tiny --budget 5MFLOPs -o tiny.png
      blockforge space tiny --sample 48 --budget 5MFLOPs --fit 0.97 -o specs/
      blockforge space my_space.yaml --enumerate
      blockforge space --around smt_t > around_smt_t.yaml
    """
    from blockforge.search.budget import as_budget
    from blockforge.search.report.space import as_json, describe_space, plot_histograms
    from blockforge.search.space.load import DEFAULT_SPACE, load_space
    from blockforge.search.space.size import count
    from blockforge.search.space.statistics import distinct_networks, draw_specs, sample_costs

    if around is not None:
        from blockforge.search.space.around import around as neighbourhood

        if source is not None:
            raise typer.BadParameter("give a space or --around SPEC", param_hint="--around")
        typer.echo(neighbourhood(around, overrides).to_yaml(), nl=False)
        return
    loaded, limits = load_space(source or DEFAULT_SPACE, overrides), as_budget(budget)
    if fit is not None and (sample is None or budget is None):
        raise typer.BadParameter("it fits specs that --sample writes to a --budget", param_hint="--fit")
    if sample is not None:
        if out is None:
            raise typer.BadParameter("say where to: -o DIR", param_hint="--sample")
        number = _write(draw_specs(loaded, sample, seed, limits, fit), out)
        console().print(f"{number} specs of {loaded.name} in {out}")
        return
    if enumerate:
        networks, invalid = distinct_networks(loaded)
        text = f"{loaded.name}: {len(networks)} different networks; {invalid} combinations of holes are invalid"
        console().print(text if out is None else f"{text}\n{_write(networks, out)} specs in {out}")
        return
    if out is not None:
        format_of(out)
    size, drawn = count(loaded), sample_costs(loaded, draws, seed, limits)
    if json:
        print_json(as_json(loaded, size, drawn, limits))
    else:
        console().print(describe_space(loaded, size, drawn, limits))
    if out is not None:
        write_figure(out, plot_histograms(loaded, drawn, limits))


def _write(networks: Iterable[Architecture], folder: Path) -> int:
    from blockforge.saving import spec_text

    make_folder(folder)
    written = 0
    for arch in networks:
        write_text(folder / f"{arch.name}.yaml", spec_text(arch.spec))
        written += 1
    return written
