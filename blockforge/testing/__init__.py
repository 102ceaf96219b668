"""The conformance suite of building blocks, for ours and for third parties'.

    from blockforge.testing import check_op, check_spec, example_places, variants

    @pytest.mark.parametrize("op", variants(MyMixer), ids=str)
    def test_my_mixer(op):
        check_op(op)                                # everything, at example places of its kind
        check_op(op, Shape(14, 9, 48))              # the same at a place of your own

    def test_my_spec():
        check_spec("my_spec.yaml")              # costs, shapes, memory and a training step of a whole model

`blockforge.testing.strategies` has hypothesis strategies for blocks and whole specs (it needs hypothesis).
"""

from blockforge.testing.checkpointing import check_checkpointing
from blockforge.testing.checks import CHECKS, check_op
from blockforge.testing.examples import accepts, build_on_maps, example_inputs, example_places, variants
from blockforge.testing.measure import count_macs, peak_bytes, peak_bytes_per_image, randomise, runnable_backends
from blockforge.testing.models import (
    check_costs,
    check_deployed,
    check_memory,
    check_shapes,
    check_sizes,
    check_spec,
    check_training_step,
)

__all__ = [
    "CHECKS",
    "accepts",
    "build_on_maps",
    "check_checkpointing",
    "check_costs",
    "check_deployed",
    "check_memory",
    "check_op",
    "check_shapes",
    "check_sizes",
    "check_spec",
    "check_training_step",
    "count_macs",
    "example_inputs",
    "example_places",
    "peak_bytes",
    "peak_bytes_per_image",
    "randomise",
    "runnable_backends",
    "variants",
]
