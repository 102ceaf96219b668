"""One of several processes of a swap, which `crew` starts: it fills the folder's library and scores."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from blockforge.errors import BlockforgeError
from blockforge.plugins import load_plugins
from blockforge.search.workers.devices import VISIBLE
from blockforge.swapping.run import fill
from blockforge.weights.files import Weights


def work(given: Mapping[str, Any]) -> None:
    """Fill a folder on the GPU that this process sees, or on the CPU. `given`: as `crew` says it."""
    load_plugins(given["plugins"])
    arguments = dict(given["arguments"])
    weights = arguments.pop("weights")
    file, key, prefix = weights if isinstance(weights, list) else (weights, None, None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"on {device}, GPUs {os.environ.get(VISIBLE, 'none')}", flush=True)
    fill(**arguments, weights=Weights(Path(file), key, prefix), device=device)


if __name__ == "__main__":
    try:
        work(json.loads(sys.argv[1]))
    except BlockforgeError as e:
        print(f"error: {e}", flush=True)
        sys.exit(1)
