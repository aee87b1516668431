"""The hub: what we need on top of onnx_ir to read, check, upgrade and write ONNX models.

    load      a file, ModelProto or ir.Model -> a checked ir.Model that every other room can rely on
    save      an ir.Model -> a file, atomically
    to_proto  an ir.Model -> a ModelProto in the form that is saved

Importing this package imports onnx and onnx_ir (0.5 s), so it is imported when first used.
"""

from lowprec.graph.load import load
from lowprec.graph.save import constant_bytes, save, to_proto

__all__ = ["constant_bytes", "load", "save", "to_proto"]
