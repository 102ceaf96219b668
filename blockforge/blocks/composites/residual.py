"""A branch: an op and the way around it."""

from __future__ import annotations

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.joined import Add
from blockforge.blocks.parts.drop_path import DropPathPart
from blockforge.blocks.parts.scale import Scale
from blockforge.blocks.registry import part
from blockforge.errors import OpError, paths_differ
from blockforge.spec.fields import InitialScale, Rate


@part("residual")
class Residual(Composite):
    """`post_act(skip(x) + drop_path(scale * of(norm(x))))`: what a branch of a layer is, anywhere. Inside, `in` is the
    map that it reads.

    Shape: x_BHWC -> y_BHWC, what `of` gives; `skip` must give the same.
    Reference: Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
    """

    of_place = {"rate": "drop_path"}

    of: Bound = Bound("identity")
    """The op."""
    norm: Bound = Bound("none")
    """Before the op; none: none."""
    scale: InitialScale | None = None
    """Initial value of a learnt scale a channel behind the op (LayerScale), or none. On the identity path it is
    `skip: {op: scale, bias: true}`."""
    drop_path: bool = True
    """false: this branch is never dropped."""
    rate: Rate = 0.0
    """At which it is dropped in training; absent: that of its layer."""
    post_act: Bound = Bound("none")
    """Activation of the sum, or none."""
    skip: Bound = Bound(True)
    """The identity path: true, false (none), or the ops on it."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        shape = build.shapes[x]
        here = self.of.frame.on(shape, dim)
        y = build.add(self.norm, x, None, (*name, "norm"))
        y = build.inner(self.of, y, dim, name, here)
        if self.scale is not None:
            y = build.step(Scale(init=self.scale), (y,), None, (*name, "scale"), self.of.place)
        path = self.skip.frame.on(shape, dim)
        skip = path.value(self.skip.value)
        if skip is not False:
            if self.drop_path and self.rate > 0:
                y = build.step(DropPathPart(rate=self.rate), (y,), None, (*name, "drop_path"), self.of.place)
            around = x if skip is True else build.add(self.skip, x, dim, (*name, "skip"), path)
            y = self._add(build, around, y, name)
        return self._activated(build, y, name)

    def _activated(self, build: Builder, y: int, name: tuple[str, ...]) -> int:
        """Behind the sum one activation, as in a branch: what else may follow stands behind the residual."""
        before = len(build.steps)
        y = build.add(self.post_act, y, None, (*name, "post_act"))
        acts = build.steps[before:]
        if len(acts) > 1 or any(step.op.kind != "act" for step in acts):
            hint = "other ops stand in a list behind the residual: [{op: residual}, ...]"
            error = OpError("post_act is one activation", hint=hint, code="wrong-kind")
            raise error.placed_at(self.post_act.place)
        return y

    def _add(self, build: Builder, around: int, y: int, name: tuple[str, ...]) -> int:
        if build.shapes[around] != build.shapes[y]:
            text = f"the op gives {build.shapes[y]}, the identity path {build.shapes[around]}"
            hint = paths_differ(build.shapes[around].dim != build.shapes[y].dim)
            error = OpError(text, hint=hint).placed_at(self.of.place)
            if around:
                error.sources = [(f"skip gives {build.shapes[around]}", self.skip.place)]
            raise error
        return build.step(Add(), (around, y), None, (*name, "add"))
