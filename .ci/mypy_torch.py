"""For mypy, what torch leaves untyped: calling a module gives what its `forward` gives, and a tensor where no more is
known than that it is a module; `unflatten` of a tensor gives a tensor."""

from __future__ import annotations

from collections.abc import Callable

from mypy.nodes import FuncDef
from mypy.plugin import MethodSigContext, Plugin
from mypy.types import AnyType, CallableType, FunctionLike, Instance, get_proper_type

_Hook = Callable[[MethodSigContext], FunctionLike]


def _giving_a_tensor(context: MethodSigContext) -> FunctionLike:
    signature = context.default_signature
    if not isinstance(get_proper_type(signature.ret_type), AnyType):
        return signature
    try:
        return signature.copy_modified(ret_type=context.api.named_generic_type("torch.Tensor", []))
    except (AssertionError, KeyError):  # while torch itself is read
        return signature


def _as_forward(context: MethodSigContext) -> FunctionLike:
    module = get_proper_type(context.type)
    if not isinstance(module, Instance) or not module.type.has_base("torch.nn.modules.module.Module"):
        return context.default_signature
    forward = module.type.get("forward")
    typed = get_proper_type(forward.node.type) if forward and isinstance(forward.node, FuncDef) else None
    if isinstance(typed, CallableType):
        return context.default_signature.copy_modified(ret_type=typed.ret_type)
    return _giving_a_tensor(context)


class _Torch(Plugin):
    def get_method_signature_hook(self, fullname: str) -> _Hook | None:
        if fullname == "torch._tensor.Tensor.unflatten":
            return _giving_a_tensor
        return _as_forward if fullname.endswith(".__call__") else None


def plugin(version: str) -> type[Plugin]:
    """What mypy asks for."""
    return _Torch
