"""`blockforge analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._analysis import (
    DataOption,
    FigureOptions,
    ImageOptions,
    ImagesOption,
    NetworkOptions,
    SeveralNetworksOptions,
    SpecsArgument,
    finish,
    opened,
    watched,
)

analyze = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look inside networks: figures and tables.")
OneSpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A zoo name, a YAML file, or TABLE:ROW.")]


@analyze.command("cka")
def analyze_cka(
    specs: SpecsArgument,
    between: Annotated[bool, typer.Option("--between", help="Compare the layers of two networks.")] = False,
    stage: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the layers of this stage.")] = None,
    images: ImageOptions = ImageOptions(images=64, batch=16),
    making: SeveralNetworksOptions = SeveralNetworksOptions(),
    figure: FigureOptions = FigureOptions(),
) -> None:
    """How alike layers are: linear CKA of each with each other.

    \b
    Examples:
      blockforge analyze cka smt_t
      blockforge analyze cka smt_t swin_tiny --between --data mnist5k
      blockforge analyze cka sparx_mamba_t sparx_connections:2 sparx_connections:3 --stage 2
      blockforge analyze cka sparx_mamba_t --variant 'M=1: stages.2.connect.window=1'
      blockforge analyze cka a/spec.yaml b/spec.yaml --weights a/best.safetensors --weights b/best.safetensors
    """
    from blockforge.analyze import similarity
    from blockforge.analyze.network_images import pair
    from blockforge.analyze.plots import draw_similarity
    from blockforge.analyze.result_rows import similarity_rows, summary_rows

    networks = opened(specs, images, making)
    groups = [pair(networks)] if between else [(each, each) for each in networks]
    results = {}
    with watched("cka", [a for a, _ in groups]) as advance:
        for a, b in groups:
            label = f"{a.label} (rows), {b.label} (columns)" if between else a.label
            other = (b.model, b.batches) if between else (None, None)
            results[label] = similarity(a.model, a.batches, *other, stage=stage, advance=advance)
    finish(
        "cka", networks, figure, draw_similarity(results), summary_rows(results),
        "linear CKA of different layers", csv=similarity_rows(results),
        whole={label: result.as_dict() for label, result in results.items()},
    )  # fmt: skip


@analyze.command("erf")
def analyze_erf(
    specs: SpecsArgument,
    stage: Annotated[int, typer.Option(metavar="N", help="Whose map; -1: the last stage's.")] = -1,
    images: ImageOptions = ImageOptions(images=16, batch=4),
    making: SeveralNetworksOptions = SeveralNetworksOptions(),
    figure: FigureOptions = FigureOptions(),
) -> None:
    """How far networks see: the effective receptive field.

    It is the gradient of the last map's centre with respect to the image, averaged over images.

    \b
    Examples:
      blockforge analyze erf smt_t swin_tiny vssd_tiny resnet50
      blockforge analyze erf smt_t --weights smt_tiny.pth --data imagefolder:imagenet --images 50
    """
    from blockforge.analyze import effective_receptive_field
    from blockforge.analyze.plots import draw_receptive_fields
    from blockforge.analyze.result_rows import field_rows

    networks = opened(specs, images, making)
    with watched("erf", networks) as advance:
        fields = {
            c.label: effective_receptive_field(c.model, c.batches, stage=stage, advance=advance) for c in networks
        }
    title = "part of the image in the square that holds 20 to 99% of the field, and its side in pixels"
    finish("erf", networks, figure, draw_receptive_fields(fields), field_rows(fields), title)


@analyze.command("rf")
def analyze_rf(
    specs: SpecsArgument,
    images: ImageOptions = ImageOptions(images=16, batch=4),
    making: SeveralNetworksOptions = SeveralNetworksOptions(),
    figure: FigureOptions = FigureOptions(),
) -> None:
    """How far attention looks: relative receptive fields.

    The mean distance to what a layer's positions read, relative to the distance of the farthest one.

    \b
    Examples:
      blockforge analyze rf smt_t --weights smt_tiny.pth --data imagefolder:imagenet
      blockforge analyze rf smt_t swin_tiny deit_s
    """
    from blockforge.analyze import relative_receptive_fields
    from blockforge.analyze.plots import draw_reaches
    from blockforge.analyze.result_rows import labelled

    networks = opened(specs, images, making)
    with watched("rf", networks) as advance:
        reaches = {c.label: relative_receptive_fields(c.model, c.batches, advance=advance) for c in networks}
    title = "relative receptive field of each attention layer"
    finish("rf", networks, figure, draw_reaches(reaches), labelled(reaches), title)


@analyze.command("m")
def analyze_m(
    spec: OneSpecArgument,
    data: DataOption = None,
    images: ImagesOption = 2,
    making: NetworkOptions = NetworkOptions(),
    figure: FigureOptions = FigureOptions(),
) -> None:
    """What layers collect: each token's weight m, over the image.

    For layers that have one, such as VSSD's non-causal state space duality.

    \b
    Examples:
      blockforge analyze m vssd_tiny --weights vssd_tiny.pth --data photo.jpg
      blockforge analyze m vssd_micro --data mnist5k --set input.size=64
    """
    from blockforge.analyze import token_weights
    from blockforge.analyze.plots import draw_token_weights
    from blockforge.analyze.result_rows import labelled, token_rows

    (network,) = networks = opened([spec], ImageOptions(data, images, batch=images), making)
    layers = token_weights(network.model, network.batches)
    finish(
        "m", networks, figure, draw_token_weights(layers, network.images.pictures[0]),
        labelled({network.label: layers}), "weights of the tokens, mean over the heads",
        csv=token_rows(layers),
    )  # fmt: skip


@analyze.command("cam")
def analyze_cam(
    spec: OneSpecArgument,
    image: Annotated[Path, typer.Option(metavar="FILE", help="The image.")],
    target: Annotated[
        int | None, typer.Option(min=0, metavar="K", help="The class.", show_default="the most probable")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="As in stages.3.layers.1.", show_default="the last one")
    ] = None,
    making: NetworkOptions = NetworkOptions(),
    figure: FigureOptions = FigureOptions(),
) -> None:
    """What in an image speaks for a class: Grad-CAM.

    \b
    Examples:
      blockforge analyze cam smt_t --weights smt_tiny.pth --image cat.jpg
      blockforge analyze cam deit_s --image cat.jpg --target 281 --layer stages.0.layers.9
    """
    from blockforge.analyze import AnalysisError, grad_cam
    from blockforge.analyze.plots import draw_class_map
    from blockforge.analyze.result_rows import top_rows

    if not image.is_file():
        raise AnalysisError(f"there is no image {image}")
    (network,) = networks = opened([spec], ImageOptions(str(image), 1, 1), making)
    result = grad_cam(network.model, network.batches[0], target, layer)
    finish(
        "cam", networks, figure, draw_class_map(result, network.images.pictures[0][0]), top_rows(result),
        f"class {result.target} at {result.layer}; the most probable classes",
        csv=result.table(), whole=result.as_dict(),
    )  # fmt: skip


@analyze.command("activations")
def analyze_activations(
    specs: SpecsArgument,
    images: ImageOptions = ImageOptions(images=16, batch=8),
    making: SeveralNetworksOptions = SeveralNetworksOptions(),
    figure: FigureOptions = FigureOptions(),
) -> None:
    """How values scale from node to node, and what is dead.

    Mean, deviation, largest value, zeros, dead channels and exploding scales of every node.

    \b
    Examples:
      blockforge analyze activations my_net.yaml
      blockforge analyze activations resnet50 --weights resnet50.pth --data photos/
    """
    from blockforge.analyze import activation_statistics
    from blockforge.analyze.plots import draw_activations
    from blockforge.analyze.result_rows import labelled

    networks = opened(specs, images, making)
    with watched("activations", networks) as advance:
        nodes = {c.label: activation_statistics(c.model, c.batches, advance=advance) for c in networks}
    title = "values of each node; a branch's include its residual sum"
    finish("activations", networks, figure, draw_activations(nodes), labelled(nodes), title)
