"""Read a model into the hub's form, or refuse it with one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from lowprec.errors import LowprecError, ModelError
from lowprec.graph.check import check_operators, check_opsets, check_proto, check_references
from lowprec.graph.constants import drop_initialized_inputs, lift_constants, own_tensors
from lowprec.graph.foreign import translate_foreign
from lowprec.graph.naming import fix_names
from lowprec.graph.read import read_proto
from lowprec.graph.shapes import forget_shapes
from lowprec.graph.silence import silent_onnx_ir
from lowprec.graph.tensors import to_dense
from lowprec.graph.upgrade import upgrade_opset
from lowprec.graph.walk import protos_of_graphs, protos_of_nodes


def load(source: str | os.PathLike[str] | onnx.ModelProto | ir.Model) -> ir.Model:
    """Return `source` as a checked hub model that shares nothing changeable with it.

    What holds for the result: standard ONNX operators at opset 21 or newer (those of onnxruntime's
    own domain are translated, QLinear ones into Q/DQ pairs); model-local functions inlined;
    `Constant` nodes lifted to initializers; nodes in topological order; every value and node named
    uniquely; inputs that have an initializer no longer inputs; no claimed intermediate shapes;
    metadata_props kept. External data stays memory-mapped.

    Args:
        source: Path of an .onnx file, an onnx.ModelProto (external data loaded), or an ir.Model.

    Raises:
        ModelError: the file or graph cannot be used; the message says why and what to do.
        UnsupportedError: an operator outside ONNX's own domains without a translation.
    """
    try:
        with silent_onnx_ir():
            return _load(source)
    except (LowprecError, MemoryError):
        raise
    except Exception as error:
        # A file from elsewhere can be damaged in more ways than the checks name one by one.
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the model is damaged ({type(error).__name__}: {reason}); copy or export it again"
        ) from error


def _load(source: object) -> ir.Model:
    if isinstance(source, ir.Model):
        model = source.clone()
    elif isinstance(source, onnx.ModelProto):
        model = _from_proto(source, None)
    elif isinstance(source, (str, os.PathLike)):
        model = _from_proto(read_proto(source), Path(source).absolute().parent)
    else:
        raise ModelError(
            f"cannot load a model from {type(source).__name__}; accepted are the path of an "
            ".onnx file, an onnx.ModelProto and an onnx_ir.Model"
        )
    own_tensors(model)
    _normalize_domains(model)
    check_opsets(model)
    InlinePass()(model)
    drop_initialized_inputs(model)
    check_references(model)
    _sort(model)
    lift_constants(model)
    fix_names(model)
    check_operators(model)
    forget_shapes(model)
    upgraded = upgrade_opset(model)
    if upgraded is not model:
        model = upgraded
        own_tensors(model)
        lift_constants(model)
        fix_names(model)
        check_operators(model)
    forget_shapes(model)
    if translate_foreign(model):
        fix_names(model)
        check_operators(model)
    return model


def _from_proto(proto: onnx.ModelProto, folder: Path | None) -> ir.Model:
    check_proto(proto, folder)
    proto = _without_sparse(proto)
    model = ir.from_proto(proto)
    if not proto.opset_import:  # IR versions 1 and 2 had no operator sets
        model.graph.opset_imports[""] = 1
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder)
    return model


def _without_sparse(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return `proto` with sparse tensors made dense; the caller's object is never changed."""
    has_sparse = any(graph.sparse_initializer for graph in protos_of_graphs(proto)) or any(
        attribute.HasField("sparse_tensor")
        for node in protos_of_nodes(proto)
        for attribute in node.attribute
    )
    if not has_sparse:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for graph in protos_of_graphs(copy):
        graph.initializer.extend(to_dense(sparse) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for node in protos_of_nodes(copy):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                dense = to_dense(attribute.sparse_tensor)
                attribute.CopyFrom(onnx.helper.make_attribute("value", dense))
    return copy


def _normalize_domains(model: ir.Model) -> None:
    """Write the default domain as '' everywhere; 'ai.onnx' is its other spelling."""
    imports = [model.graph.opset_imports]
    imports += [function.opset_imports for function in model.functions.values()]
    for versions in imports:
        spelled_out = versions.pop("ai.onnx", None)
        if spelled_out is not None:
            versions[""] = max(spelled_out, versions.get("", 0))


def _sort(model: ir.Model) -> None:
    try:
        model.graph.sort()
    except ValueError:
        raise ModelError(
            "the model's graph has a cycle: some nodes need each other's results; export it again"
        ) from None
