"""Heads made of ops."""

from __future__ import annotations

from pydantic import ConfigDict
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Head, Shape
from blockforge.blocks.compose.expand import program
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.written_op import Written


class WrittenHead(Head):
    """A head of any form: `logits` in it is what gives the classes. Ends it in a map, the map is the result."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    of: Bound

    def with_names(self, names: dict[str, object]) -> WrittenHead:
        return WrittenHead(of=Written(of=self.of).with_names(names).of)

    @property
    def title(self) -> str:
        return Written(of=self.of).title

    def parameters_dict(self) -> dict[str, object]:
        return Written(of=self.of).parameters_dict()

    def program(self, shape: Shape, num_classes: int) -> Program:
        names = {**dict(self.of.frame.names), "classes": num_classes}
        return program(Written(of=self.of).with_names(names), shape, None)

    def out_shape(self, shape: Shape, num_classes: int) -> Shape:
        return self.program(shape, num_classes).out_shape

    def cost(self, shape: Shape, num_classes: int) -> Cost:
        return self.program(shape, num_classes).cost()

    def workspace(self, shape: Shape, num_classes: int) -> int:
        return self.program(shape, num_classes).workspace()

    def num_parts(self, shape: Shape, num_classes: int) -> int:
        return len(self.program(shape, num_classes).steps)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return ComposedHead(self.program(shape, num_classes))


class ComposedHead(Composed):
    """Runs the program of a head: x_BHWC -> y_BK, of a map y_BKHW; with `pre_logits` what `logits` reads."""

    drop_rate = 0.0

    @property
    def fc(self) -> nn.Module:
        """What gives the classes."""
        return self.classifiers()[0]

    def classifiers(self) -> list[nn.Module]:
        return [self.get_submodule(step.path) for step in self.program.steps if step.classifies]

    def reset(self, num_classes: int) -> None:
        """Replace what gives the classes; 0: by nothing."""
        for module in self.classifiers():
            module.reset(num_classes)  # type: ignore[operator]

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        y = self.run(self, x, not pre_logits)
        return y.flatten(1) if tuple(y.shape[1:3]) == (1, 1) else y.permute(0, 3, 1, 2)
