"""The adapter of toy_network: the whole contract, in one file, with public names of lowprec "
"only."""

import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lowprec.graph import load
from lowprec.hookspecs import AdapterInfo, Captured, hookimpl


class QuantizedNetwork:
    """Called like a Network; has the members of every quantised model too."""

    def __init__(self, quantized):
        """Take the lowprec.QuantizedModel."""
        self._quantized = quantized

    def __call__(self, x):
        """Return the outputs for one sample, (inputs,) -> (outputs,)."""
        return self._quantized(x[None].astype(np.float32))[0]

    def __getattr__(self, name):
        """Forward run, save, report, explain ..."""
        return getattr(self._quantized, name)


@hookimpl
def lowprec_capture(model):
    """Translate a Network."""
    framework = sys.modules.get("toy_network")
    if framework is None or not isinstance(model, framework.Network):
        return None
    return Captured(graph=load(_translate(model)), source=model, kind="toy")


def _translate(network):
    nodes, constants, value = [], [], "x"
    for number, (weights, bias) in enumerate(network.layers):
        if number:
            nodes.append(helper.make_node("Relu", [value], [f"r{number}"], f"relu.{number}"))
            value = f"r{number}"
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{number}"))
        constants.append(numpy_helper.from_array(bias.astype(np.float32), f"b{number}"))
        inputs = [value, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"y{number}"], f"dense.{number}", transB=1))
        value = f"y{number}"
    sizes = (network.layers[0][0].shape[1], network.layers[-1][0].shape[0])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in zip(("x", value), sizes, strict=True)
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@hookimpl
def lowprec_rebuild(quantized, captured):
    """Return a callable like the original."""
    return QuantizedNetwork(quantized) if captured.kind == "toy" else None


@hookimpl
def lowprec_batches(data):
    """Take a Recording; leave everything else to others."""
    framework = sys.modules.get("toy_network")
    if framework is None or not isinstance(data, framework.Recording):
        return None
    return ({"x": sample[None].astype(np.float32)} for sample in data.samples)


class Halved:
    """A calibration method: half of the range that was observed."""

    def __init__(self, config):
        """Take the configuration; nothing in it matters here."""

    def end_batch(self, observer):
        """Nothing to note."""

    def range(self, observer):
        """Return the range of one tensor."""
        from lowprec.calibration import Range

        return Range(observer.minimum / 2, observer.maximum / 2, "toy.halved")


class Trimmed:
    """A calibration method on what was counted: the outermost hundredths are cut off."""

    def __init__(self, config):
        """Take the configuration: its scheme is the tensor's own."""
        self.symmetric = config.activations.scheme == "symmetric"
        self.widest = 0.0
        self.batches = 0

    def end_batch(self, observer):
        """Remember the widest batch."""
        self.batches += 1
        self.widest = max(self.widest, observer.batch_maximum - observer.batch_minimum)

    def range(self, observer):
        """Return the range of one tensor."""
        from lowprec.calibration import Range

        histogram = observer.real_histogram
        assert histogram.total == observer.count > 0
        assert 0 < self.widest <= observer.maximum - observer.minimum
        low, high = histogram.quantile(0.01), histogram.quantile(0.99)
        note = f"{self.batches} batches, symmetric {self.symmetric}"
        clipped = histogram.share_below(low) + 1 - histogram.share_below(high)
        return Range(low, high, "toy.trimmed", clipped=clipped, note=note)


@hookimpl
def lowprec_observers():
    """Add calibration methods."""
    return {"toy.halved": Halved, "toy.trimmed": Trimmed}


@hookimpl
def lowprec_describe():
    """Say what is accepted."""
    return AdapterInfo("toy", {"toy_network": "1.2.3"}, "a toy_network.Network")
