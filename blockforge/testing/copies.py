"""Laws of copies: a module that is copied, stored or started anew is the same, and so is a block that is reloaded."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import torch

from blockforge.blocks import registry
from blockforge.blocks.base import Op, Place
from blockforge.testing.examples import build_on_maps, example_inputs, example_module
from blockforge.torch_private import names_of_computed_buffers


def check_copies(op: Op[*Place], *place: *Place) -> None:
    """deepcopy, pickle and a state dict's round trip give the same module."""
    module, x = example_module(op, *place), example_inputs(op.kind, *place)
    fresh = build_on_maps(op, *place).eval()
    fresh.load_state_dict(module.state_dict())
    with torch.no_grad():
        y = module(*x)
        for how, other in (
            ("deepcopy", copy.deepcopy(module)),
            ("pickle", pickle.loads(pickle.dumps(module))),
            ("state_dict", fresh),
        ):
            assert torch.equal(other(*x), y), f"{how} gives another result"


def check_buffers(op: Op[*Place], *place: *Place) -> None:
    """Buffers that are not saved are computed again by `init_non_persistent_buffers`, as loaders call it that gave
    memory to a module from the meta device."""
    module, x = example_module(op, *place), example_inputs(op.kind, *place)
    fresh = build_on_maps(op, *place).to("meta").to_empty(device="cpu").eval()
    fresh.load_state_dict(module.state_dict())
    for name, part in fresh.named_modules():
        if not (computed := names_of_computed_buffers(part)):
            continue
        again = getattr(part, "init_non_persistent_buffers", None)
        assert callable(again), f"'{name}' has buffers that are not saved and no init_non_persistent_buffers()"
        for buffer in computed:
            part.get_buffer(buffer).fill_(1)
        again()
    with torch.no_grad():
        assert torch.equal(fresh(*x), module(*x)), "with its weights, a module from the meta device is another one"


def check_reset(op: Op[*Place], *place: *Place) -> None:
    """Given memory module by module, as FSDP does it, each starts its own parameters by `reset_parameters()`."""
    module, x = build_on_maps(op, *place).to("meta"), example_inputs(op.kind, *place)
    for name, part in module.named_modules():
        own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if not own:
            continue
        part.to_empty(device="cpu", recurse=False)
        with torch.no_grad():
            for parameter in part.parameters(recurse=False):
                parameter.fill_(torch.nan)
        reset: Any = getattr(part, "reset_parameters", None)
        assert callable(reset), f"'{name}' has parameters or buffers of its own and no reset_parameters()"
        reset()
    with torch.no_grad():
        assert module(*x).isfinite().all(), "after reset_parameters() it gives numbers that are not finite"


def check_parameters(op: Op[*Place], *place: *Place) -> None:
    """The parameters reload through the registry, from plain data, to an equal block."""
    plain = json.loads(json.dumps(op.parameters_dict()))
    again = registry.make(op.op, plain, op.kind)
    is_same, cost = again == op, again.cost(*place)
    assert is_same, f"{plain} reloads to {again}"
    assert cost == op.cost(*place), "the reloaded block has another cost"
