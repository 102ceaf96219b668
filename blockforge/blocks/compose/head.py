"""Heads made of ops."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import ConfigDict
from torch import Tensor, nn

from blockforge.blocks.base import Head, Placed, Shape
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.module import Composed, called
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.written_op import Written
from blockforge.errors import BlockforgeError, OpError

WITHOUT_LOGITS = "the head has no 'logits' that could give other classes"


class WrittenHead(OfParts[Shape, int], Head):
    """A head of any form: `logits` in it is what gives the classes. Ends it in a map, the map is the result."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    by_name = False

    of: Bound

    def with_names(self, names: dict[str, object]) -> WrittenHead:
        return WrittenHead(of=Written(of=self.of).with_names(names).of)

    @property
    def title(self) -> str:
        return Written(of=self.of).title

    def parameters_dict(self) -> dict[str, object]:
        return Written(of=self.of).parameters_dict()

    def as_program(self, shape: Shape, num_classes: int) -> Program:
        names = {**dict(self.of.frame.names), "classes": num_classes}
        return Written(of=self.of).with_names(names).as_program(shape, None)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return ComposedHead(Placed(self, (shape, num_classes)))


class ComposedHead(Composed):
    """Runs the program of a head: x_BHWC -> y_BK, of a map y_BKHW; with `pre_logits` what `logits` reads.

    Attributes:
        drop_rate: share of the features that training drops before each `logits`.
    """

    def __init__(self, placed: Placed[Shape, int]) -> None:
        super().__init__(program_of(placed))
        self.placed, self.drop_rate = placed, 0.0

    @property
    def fc(self) -> nn.Module:
        """What gives the classes; of several the first, of none a module that changes nothing."""
        classifiers = [self.get_submodule(step.path) for step in self.program.own_modules() if step.classifies]
        return classifiers[0] if classifiers else nn.Identity()

    def reset(self, num_classes: int) -> None:
        """Replace what gives the classes by new ones; 0: by nothing. Other modules stay, unless they read classes.

        Raises: BlockforgeError for a head in which nothing is replaced.
        """
        if not self.refit(Placed(self.placed.op, (self.placed.place[0], num_classes))):
            raise BlockforgeError(WITHOUT_LOGITS)

    def refit(self, placed: Placed[Shape, int]) -> bool:
        """Become the head of another number of classes: what gives them is new, and what stands otherwise there. Says
        whether anything is."""
        self.placed = placed
        return self.become(program_of(placed))

    def classified(self, logits: nn.Module, x: Tensor) -> Tensor:
        """What `logits` makes of the features, some of which training drops."""
        return called(logits, F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        y: Tensor = self.run(self, x, _features if pre_logits else self.classified)
        if self.program.out_shape.positions > 1:
            return y.permute(0, 3, 1, 2)
        if y.shape[1:3] != (1, 1):
            text = f"the head gives one position where it was built, and {y.shape[1]}x{y.shape[2]} here"
            raise OpError(text, hint="pool in it, or build the model for this size with input.size")
        return y.flatten(1)


def program_of(head: Placed[Shape, int]) -> Program:
    program = head.op.as_program(*head.place)
    assert program is not None
    return program


def _features(logits: nn.Module, x: Tensor) -> Tensor:
    """In place of `ComposedHead.classified`: what the classifier reads."""
    return x
