"""A network as one readable file of plain PyTorch: what `blockforge eject` writes."""

from blockforge.eject.check import Ejected, write_ejected
from blockforge.eject.file import eject
from blockforge.eject.recorded import EjectError

__all__ = ["EjectError", "Ejected", "eject", "write_ejected"]
