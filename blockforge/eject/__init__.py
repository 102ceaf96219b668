"""A network as one readable file of plain PyTorch: what `blockforge eject` writes."""

from blockforge.eject.check import Ejected, EjectError, write_ejected
from blockforge.eject.file import eject

__all__ = ["EjectError", "Ejected", "eject", "write_ejected"]
