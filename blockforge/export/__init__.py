"""Models for other runtimes: ONNX files and torch.export programs, compared with the model before they appear."""

from blockforge.export.capture import Axis
from blockforge.export.files import SUFFIXES, Exported, Format, export_model, write_export
from blockforge.export.kinds import ExportError

__all__ = ["SUFFIXES", "Axis", "ExportError", "Exported", "Format", "export_model", "write_export"]
