"""Models on the Hugging Face hub: the folder of `save_model`, with a config that timm reads and a model card."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from blockforge import __version__
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.out_norms import out_norm_values
from blockforge.errors import WeightsError
from blockforge.extras import need
from blockforge.files import make_folder, write_text
from blockforge.integrations.pretrained_cfg import pretrained_cfg
from blockforge.saving import load_model, save_model, spec_text

need("hub", "huggingface_hub")

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: E402

_FILES = ["spec.yaml", "versions.json", "model.safetensors"]
"""What `load_model` reads."""

_CARD = """---
{{ card_data }}
---

# {{ name }}

A vision backbone, built by BlockForge {{ version }} from the spec below.

| parameters | multiply-adds | image | {{ output }} |
|---|---|---|---|
| {{ params }} | {{ macs }} | {{ image }} | {{ values }} |

## Use

```python
{{ use }}
```

## Spec

```yaml
{{ spec }}
```
"""


def from_pretrained(folder_or_repo: str | os.PathLike[str], **kwargs: Any) -> Backbone:
    """The model in a folder that `save_pretrained` wrote, or in a repository of the hub, in evaluation mode.

    Args:
        kwargs: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`, as huggingface_hub's.
    Raises: WeightsError or SpecError if there is none that loads.
    """
    name = os.fspath(folder_or_repo)
    if Path(name).is_dir():
        return load_model(name).eval()
    try:
        return HubModel.from_pretrained(name, **kwargs).model.eval()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as e:
        first = str(e).strip().splitlines()[0]
        raise WeightsError(f"'{name}' is no folder, and no repository that could be read: {first}") from None


def save_pretrained(model: Backbone, save_directory: str | os.PathLike[str], **kwargs: Any) -> str | None:
    """Write the folder of `save_model` with a `config.json` and a model card, as huggingface_hub's mixin does."""
    return HubModel(model).save_pretrained(Path(save_directory), **kwargs)


def push_to_hub(model: Backbone, repo_id: str, **kwargs: Any) -> str:
    """Upload what `save_pretrained` writes; the arguments are those of huggingface_hub's mixin."""
    return str(HubModel(model).push_to_hub(repo_id, **kwargs))


class HubModel(
    ModelHubMixin,
    library_name="blockforge",
    tags=["blockforge"],
    model_card_template=_CARD,
):
    """A model, with the methods of huggingface_hub's mixin."""

    def __init__(self, model: Backbone) -> None:
        self.model = model

    def save_pretrained(
        self, save_directory: str | Path, *, model_card_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> str | None:
        """huggingface_hub's, with every file whole or not there. Raises: OutputError."""
        folder = Path(save_directory)
        make_folder(folder)
        if not (card := folder / "README.md").exists():
            write_text(card, str(self.generate_model_card(**(model_card_kwargs or {}))))
        pushed_to: str | None = super().save_pretrained(folder, model_card_kwargs=model_card_kwargs, **kwargs)
        return pushed_to

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self.model, save_directory)
        text = json.dumps(config(self.model), indent=1) + "\n"
        write_text(save_directory / "config.json", text)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> HubModel:
        return cls(load_model(snapshot_download(model_id, allow_patterns=_FILES, **kwargs)))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card: what the model costs, how to load it, its spec. Arguments replace values of the template."""
        model, size = self.model, self.model.arch.plan.input
        known = {
            "name": model.arch.name,
            "version": __version__,
            "params": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M",
            "macs": f"{_macs(model) / 1e9:.2f}G",
            "image": f"{size.channels} x {size.size[0]} x {size.size[1]}",
            **_output(model),
            "use": _use(model),
            "spec": spec_text(model.spec).strip(),
        }
        card = super().generate_model_card(*args, **{**known, **kwargs})
        card.data["pipeline_tag"] = _task(model)
        return card


def _output(model: Backbone) -> dict[str, Any]:
    """What it gives, for the card: the heading and the value of a column."""
    if model.out_indices is not None:
        return {"output": "channels of the maps", "values": ", ".join(map(str, model.feature_info.channels()))}
    shapes = {name: head.last.out_shape for name, head in model.arch.heads.items()}
    if not model.arch.plan.names_outputs and shapes["head"].positions == 1:
        return {"output": "classes", "values": model.num_classes}
    told = {name: str(s.dim) if s.positions == 1 else f"{s.dim} x {s.height} x {s.width}" for name, s in shapes.items()}
    if not model.arch.plan.names_outputs:
        return {"output": "map", "values": told["head"]}
    return {"output": "outputs", "values": ", ".join(f"{name}: {shape}" for name, shape in told.items())}


def _task(model: Backbone) -> str:
    """The hub's word for what the main output is."""
    if not model.num_classes:
        return "image-feature-extraction"
    return "image-classification" if model.arch.main_head.last.out_shape.positions == 1 else "image-segmentation"


def _macs(model: Backbone) -> int:
    """Multiply-adds of what the model runs: with `features_only`, of the stages up to its last map."""
    if model.out_indices is None:
        return model.arch.macs
    nodes, last = model.arch.nodes.values(), max(model.out_indices)
    return sum(n.macs for n in nodes if n.site.output is None and (n.stage or 0) <= last)


def config(model: Backbone) -> dict[str, Any]:
    """`config.json`: the spec, where timm looks for a model's arguments. timm loads whole models only."""
    arguments: dict[str, Any] = {"spec": model.spec.tree}
    if model.out_indices is not None:
        arguments |= {"features_only": True, "out_indices": list(model.out_indices)}
        norm = out_norm_values(model.out_norm)
        return {"model_args": {**arguments, "out_norm": norm} if norm is not None else arguments}
    if not model.pooled:
        arguments["global_pool"] = ""
    named = {} if model.classes is None else {"label_names": list(model.classes)}
    return {
        "architecture": "blockforge",
        **named,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "pretrained_cfg": pretrained_cfg(model.arch),
        "model_args": arguments,
    }


def _use(model: Backbone) -> str:
    lines = [
        "from blockforge.integrations.hub import from_pretrained",
        "",
        'model = from_pretrained("FOLDER_OR_REPOSITORY")',
    ]
    if model.out_indices is None:
        lines += [
            "",
            "# or through timm",
            "import timm, blockforge.timm",
            "",
            'model = timm.create_model("hf-hub:REPOSITORY", pretrained=True)  # local-dir:FOLDER',
        ]
    return "\n".join(lines)
