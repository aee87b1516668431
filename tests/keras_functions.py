"""Functions that a call() is written with: keras.ops, keras.activations, tf.nn, tf.image.

`OPS` and `LEFT_OUT` together are compared with keras.ops by
tests/adapters/tensorflow/test_keras_functions.py: a new function shows up as a gap.

Each takes `x` and `y`, f32 [batch, 4, 6], and `i`, i32 [batch, 5] below 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

K = keras.ops
Function = Callable[[Any, Any, Any], Any]


def _of(functions: Any, names: str, given: Function) -> dict[str, Function]:
    """Return functions of one argument, each called with what `given` makes."""

    def made(function: Any) -> Function:
        return lambda x, y, i: function(given(x, y, i))

    return {name: made(getattr(functions, name)) for name in names.split()}


def _all(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


def _images(names: str) -> dict[str, Function]:
    return {f"image.{name}": one for name, one in _of(tf.image, names, _image).items()}


def _two(functions: Any, names: str, first: Function, second: Function) -> dict[str, Function]:
    def made(function: Any) -> Function:
        return lambda x, y, i: function(first(x, y, i), second(x, y, i))

    return {name: made(getattr(functions, name)) for name in names.split()}


def _x(x: Any, y: Any, i: Any) -> Any:
    return x


def _y(x: Any, y: Any, i: Any) -> Any:
    return y


def _positive(x: Any, y: Any, i: Any) -> Any:
    return tf.abs(x) + 0.1


def _divisor(x: Any, y: Any, i: Any) -> Any:
    return tf.where(y > 0, y + 0.2, y - 0.2)


def _unit(x: Any, y: Any, i: Any) -> Any:
    return tf.tanh(x) * 0.9


def _whole(x: Any, y: Any, i: Any) -> Any:
    return i


def _truth(x: Any, y: Any, i: Any) -> Any:
    return x > 0


def _image(x: Any, y: Any, i: Any) -> Any:
    return tf.reshape(tf.concat([x, y], 1), (-1, 8, 2, 3))


_WINDOW = np.linspace(-1, 1, 3 * 6 * 4, dtype=np.float32).reshape(3, 6, 4)
_MATRIX = np.linspace(-1, 1, 6 * 5, dtype=np.float32).reshape(6, 5)
_TABLE = np.linspace(-1, 1, 8 * 3, dtype=np.float32).reshape(8, 3)

OPS: dict[str, Function] = {
    **_of(
        K,
        "abs absolute arcsinh arctan ceil copy cos cosh deg2rad diagonal elu erf erfc exp exp2 "
        "expm1 fabs floor gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh "
        "isfinite isinf isnan isneginf isposinf isreal leaky_relu log_sigmoid "
        "log_softmax logsumexp max mean min nan_to_num ndim negative normalize ones_like prod "
        "rad2deg ravel relu relu6 round selu shape sigmoid sign signbit silu sin sinc sinh "
        "soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax square "
        "squareplus std stop_gradient sum swish tan tanh tanh_shrink trace transpose tril triu "
        "trunc var zeros_like amax amin all any argmax argmin average celu count_nonzero cumsum "
        "real conj conjugate fliplr flipud nanmax nanmin nansum nanmean median size "
        "empty_like flip nancumsum nanprod nanstd nanvar rot90 glu",
        _x,
    ),
    **_of(K, "log log10 log1p log2 reciprocal rsqrt sqrt cbrt", _positive),
    **_of(K, "arccos arcsin arctanh", _unit),
    **_of(K, "arccosh", lambda x, y, i: tf.abs(x) + 1.1),
    **_of(K, "logical_not", _truth),
    **_of(K, "bitwise_invert bitwise_not", _whole),
    **_two(
        K,
        "add arctan2 equal greater greater_equal less less_equal logaddexp logaddexp2 maximum "
        "minimum multiply not_equal subtract heaviside fmax fmin isclose hypot",
        _x,
        _y,
    ),
    **_two(K, "divide divide_no_nan floor_divide fmod mod true_divide", _x, _divisor),
    **_two(K, "power", _positive, _y),
    **_two(K, "logical_and logical_or logical_xor", _truth, lambda x, y, i: y > 0),
    **_two(K, "bitwise_and bitwise_or bitwise_xor", _whole, lambda x, y, i: i + 1),
    **_two(K, "bitwise_left_shift left_shift", _whole, lambda x, y, i: i // 2),
    **_two(K, "inner", _x, lambda x, y, i: y[0]),
    **_two(K, "matmul dot", _x, lambda x, y, i: _MATRIX),
    "adaptive_average_pool": lambda x, y, i: K.adaptive_average_pool(x, 2),
    "adaptive_max_pool": lambda x, y, i: K.adaptive_max_pool(x, 2),
    "allclose": lambda x, y, i: K.allclose(x, y),
    "append": lambda x, y, i: K.append(x, y, axis=1),
    "argsort": lambda x, y, i: K.argsort(x),
    "array_split": lambda x, y, i: K.array_split(x, 4, axis=2),
    "average_pool": lambda x, y, i: K.average_pool(x, 2, 1, "same"),
    "batch_normalization": lambda x, y, i: K.batch_normalization(
        x, _TABLE[0].repeat(2), _TABLE[1].repeat(2) ** 2 + 1, -1
    ),
    "binary_crossentropy": lambda x, y, i: K.binary_crossentropy(K.sigmoid(x), K.sigmoid(y)),
    "broadcast_to": lambda x, y, i: K.broadcast_to(x[:1], (3, 4, 6)),
    "cast": lambda x, y, i: K.cast(x, "int32"),
    "clip": lambda x, y, i: K.clip(x, -0.5, 0.5),
    "concatenate": lambda x, y, i: K.concatenate([x, y], -1),
    "cond": lambda x, y, i: K.cond(K.sum(x) > 0, lambda: x, lambda: -y),
    "conv": lambda x, y, i: K.conv(x, _WINDOW, 1, "same"),
    "conv_transpose": lambda x, y, i: K.conv_transpose(x, _WINDOW.transpose(0, 2, 1), 2, "same"),
    "cross": lambda x, y, i: K.cross(x[..., :3], y[..., :3]),
    "depth_to_space": lambda x, y, i: K.depth_to_space(K.reshape(x, (-1, 2, 3, 4)), 2),
    "depthwise_conv": lambda x, y, i: K.depthwise_conv(x, _WINDOW[..., :1], 1, "same"),
    "diag": lambda x, y, i: K.diag(x[0, 0]),
    "diff": lambda x, y, i: K.diff(x),
    "digitize": lambda x, y, i: K.digitize(x, np.asarray([-1.0, 0.0, 1.0])),
    "dot_product_attention": lambda x, y, i: K.dot_product_attention(
        *(K.reshape(part, (-1, 4, 2, 3)) for part in (x, y, x))
    ),
    "dtype": lambda x, y, i: x if K.dtype(x) == "float32" else y,
    "dsplit": lambda x, y, i: K.dsplit(x, 2),
    "dstack": lambda x, y, i: K.dstack([x, y]),
    "einsum": lambda x, y, i: K.einsum("abc,abd->acd", x, y),
    "equal": lambda x, y, i: K.equal(i, 1),
    "norm": lambda x, y, i: K.norm(x, axis=-1),
    "diagonal": lambda x, y, i: K.diagonal(x[:, :, :4], 0, 1, 2),
    "trace": lambda x, y, i: K.trace(x[:, :, :4], 0, 1, 2),
    "expand_dims": lambda x, y, i: K.expand_dims(x, (0, 2)),
    "extract_sequences": lambda x, y, i: K.extract_sequences(x, 4, 2),
    "full_like": lambda x, y, i: K.full_like(x, 3),
    "get_item": lambda x, y, i: K.get_item(x, (slice(None), 1)),
    "hsplit": lambda x, y, i: K.hsplit(x, 2),
    "hstack": lambda x, y, i: K.hstack([x, y]),
    "layer_normalization": lambda x, y, i: K.layer_normalization(x, axis=-1),
    "ldexp": lambda x, y, i: K.ldexp(x, K.cast(y, "int32")),
    "linspace": lambda x, y, i: K.linspace(x, y, 5),
    "max_pool": lambda x, y, i: K.max_pool(x, 2, 1, "same"),
    "meshgrid": lambda x, y, i: K.meshgrid(x[0, 0], y[0, 1]),
    "moments": lambda x, y, i: K.moments(x, axes=[1]),
    "moveaxis": lambda x, y, i: K.moveaxis(x, 1, 2),
    "multi_hot": lambda x, y, i: K.multi_hot(i, 4),
    "nonzero": lambda x, y, i: K.nonzero(x > 0),
    "one_hot": lambda x, y, i: K.one_hot(i, 5),
    "outer": lambda x, y, i: K.outer(x[0, 0], y[0, 0]),
    "pad": lambda x, y, i: K.pad(x, ((0, 0), (1, 2), (0, 1)), "reflect"),
    "ptp": lambda x, y, i: K.ptp(x, axis=-1),
    "rearrange": lambda x, y, i: K.rearrange(x, "b (c d) e -> b c (d e)", c=2),
    "repeat": lambda x, y, i: K.repeat(x, 2, axis=1),
    "reshape": lambda x, y, i: K.reshape(x, (-1, 3, 8)),
    "rms_normalization": lambda x, y, i: K.rms_normalization(x, axis=-1),
    "roll": lambda x, y, i: K.roll(x, 2, axis=1),
    "saturate_cast": lambda x, y, i: K.saturate_cast(x * 300, "uint8"),
    "scatter": lambda x, y, i: K.scatter(i[:1, :2], x[0, :1, 0], (4, 4)),
    "scatter_update": lambda x, y, i: K.scatter_update(x, np.asarray([[0, 1, 2]]), y[0, 0, :1]),
    "searchsorted": lambda x, y, i: K.searchsorted(np.asarray([-1.0, 0.0, 1.0], "f"), x[0, 0]),
    "select": lambda x, y, i: K.select([x > 0, y > 0], [x, y], 0.5),
    "separable_conv": lambda x, y, i: K.separable_conv(x, _WINDOW[..., :1], _MATRIX[None], 1),
    "slice": lambda x, y, i: K.slice(x, (0, 1, 2), (1, 2, 3)),
    "sort": lambda x, y, i: K.sort(x),
    "space_to_depth": lambda x, y, i: K.space_to_depth(K.reshape(x, (-1, 2, 4, 3)), 2),
    "split": lambda x, y, i: K.split(x, [1, 3], axis=-1),
    "squeeze": lambda x, y, i: K.squeeze(x[:, :1], 1),
    "stack": lambda x, y, i: K.stack([x, y], 1),
    "swapaxes": lambda x, y, i: K.swapaxes(x, 1, 2),
    "switch": lambda x, y, i: K.switch(1, [lambda a: a, lambda a: -a], x),
    "take": lambda x, y, i: K.take(_TABLE, i, axis=0),
    "take_along_axis": lambda x, y, i: K.take_along_axis(x, i[:, :4, None], axis=2),
    "tensordot": lambda x, y, i: K.tensordot(x, _MATRIX, 1),
    "threshold": lambda x, y, i: K.threshold(x, 0.2, 0.0),
    "tile": lambda x, y, i: K.tile(x, (1, 2, 3)),
    "top_k": lambda x, y, i: K.top_k(x, 3),
    "trapezoid": lambda x, y, i: K.trapezoid(x),
    "tri": lambda x, y, i: K.tri(6) * x[:, :1],
    "unstack": lambda x, y, i: K.unstack(x, axis=1),
    "vdot": lambda x, y, i: K.vdot(x, y),
    "vsplit": lambda x, y, i: K.vsplit(K.transpose(x, (1, 0, 2)), 2),
    "vstack": lambda x, y, i: K.vstack([x, y]),
    "where": lambda x, y, i: K.where(x > 0, x, y),
    "stft": lambda x, y, i: K.stft(K.reshape(x, (-1, 24)), 8, 4, 8),
    "rfft": lambda x, y, i: K.rfft(x),
    "cdist": lambda x, y, i: K.cdist(x, y),
    "angle": lambda x, y, i: K.angle(x),
    "convert_to_tensor": lambda x, y, i: K.convert_to_tensor(x) * K.convert_to_tensor(_TABLE[0, 0]),
    "psnr": lambda x, y, i: K.psnr(x, y, 2.0),
    "eye": lambda x, y, i: K.eye(6) + x[:, :1],
    "identity": lambda x, y, i: K.identity(6) + x[:, :1],
    "arange": lambda x, y, i: K.arange(6) + i[:, :1],
    "full": lambda x, y, i: K.full((6,), 2.0) * x,
    "ones": lambda x, y, i: K.ones((6,)) * x,
    "zeros": lambda x, y, i: K.zeros((6,)) + x,
    "empty": lambda x, y, i: K.empty((6,)) * 0.0 + x,
    "array": lambda x, y, i: K.array([1.0, 2.0]) * x[..., :2],
    "hamming": lambda x, y, i: K.hamming(6) * x,
    "hanning": lambda x, y, i: K.hanning(6) * x,
    "blackman": lambda x, y, i: K.blackman(6) * x,
    "logspace": lambda x, y, i: K.logspace(0, 1, 6) * x,
    "geomspace": lambda x, y, i: K.geomspace(1, 3, 6) * x,
    "bincount": lambda x, y, i: K.bincount(i, minlength=5),
}

# Functions of keras.ops that mean nothing in a graph for inference, or that are refused.
LEFT_OUT: dict[str, str] = {
    **_all(
        "associative_scan fori_loop map scan vectorized_map while_loop jvp custom_gradient",
        "loops and gradients, which have tests of their own or no meaning at inference",
    ),
    **_all("convert_to_numpy is_tensor", "no graph"),
    **_all("ctc_loss ctc_decode in_top_k", "losses, metrics and decoders"),
    **_all("categorical_crossentropy sparse_categorical_crossentropy", "losses"),
    **_all(
        "argpartition bartlett gcd isin kron lcm unfold unravel_index vectorize",
        "Keras cannot trace it on TensorFlow while the batch is open",
    ),
    **_all("cumprod erfinv slice_update kaiser", "ONNX has none; refused by name"),
    **_all(
        "cholesky cholesky_inverse det eig eigh inv logdet lstsq lu_factor matrix_rank pinv qr "
        "slogdet solve solve_triangular svd corrcoef",
        "linear algebra that ONNX does not have",
    ),
    **_all(
        "fft fft2 ifft2 imag irfft istft fold polar view_as_complex view_as_real",
        "complex numbers",
    ),
    **_all(
        "histogram unique segment_max segment_min segment_prod segment_sum",
        "sizes that depend on data",
    ),
    **_all(
        "i0 nextafter nanargmax nanargmin nanmedian nanpercentile nanquantile nancumprod "
        "percentile quantile vander view correlate diagflat right_shift bitwise_right_shift",
        "statistics and bits that no layer needs; not compared",
    ),
}

ACTIVATIONS = {
    name: getattr(keras.activations, name)
    for name in dir(keras.activations)
    if not name.startswith("_") and name not in ("get", "serialize", "deserialize", "threshold")
}

OTHERS: dict[str, Function] = {
    **_of(
        tf.nn,
        "elu gelu leaky_relu relu relu6 selu sigmoid silu softmax softplus softsign tanh crelu "
        "log_softmax l2_normalize l2_loss zero_fraction",
        _x,
    ),
    "nn.bias_add": lambda x, y, i: tf.nn.bias_add(x, y[0, 0]),
    "nn.atrous_conv2d": lambda x, y, i: tf.nn.atrous_conv2d(
        _image(x, y, i), _WINDOW.reshape(3, 2, 3, 4), 2, "SAME"
    ),
    "nn.avg_pool2d": lambda x, y, i: tf.nn.avg_pool2d(_image(x, y, i), 2, 2, "SAME"),
    "nn.lrn": lambda x, y, i: tf.nn.local_response_normalization(_image(x, y, i)),
    "nn.moments": lambda x, y, i: tf.nn.moments(x, [1]),
    "nn.embedding_lookup": lambda x, y, i: tf.nn.embedding_lookup(_TABLE, i),
    "nn.space_to_batch": lambda x, y, i: tf.space_to_batch_nd(
        _image(x, y, i), [2, 1], [[0, 2], [0, 0]]
    ),
    "nn.batch_to_space": lambda x, y, i: tf.batch_to_space(
        tf.concat([_image(x, y, i)] * 4, 0), [2, 2], [[1, 0], [0, 1]]
    ),
    "nn.depthwise_conv2d": lambda x, y, i: tf.nn.depthwise_conv2d(
        _image(x, y, i), _WINDOW.reshape(3, 2, 3, 4), [1, 1, 1, 1], "SAME", dilations=[2, 2]
    ),
    "nn.conv2d explicit": lambda x, y, i: tf.nn.conv2d(
        _image(x, y, i), _WINDOW.reshape(3, 2, 3, 4), 1, [[0, 0], [1, 2], [0, 1], [0, 0]]
    ),
    **{
        f"image.resize {method}": (
            lambda x, y, i, m=method: tf.image.resize(_image(x, y, i), (5, 7), m)
        )
        for method in ("bilinear", "nearest", "bicubic")
    },
    **{
        f"compat.resize {name} {key}": (
            lambda x, y, i, n=name, k=key: getattr(tf.compat.v1.image, n)(
                _image(x, y, i), (5, 7), **({k: True} if k else {})
            )
        )
        for name in ("resize_bilinear", "resize_nearest_neighbor", "resize_bicubic")
        for key in ("", "align_corners", "half_pixel_centers")
    },
    **_images(
        "flip_left_right flip_up_down rgb_to_grayscale rgb_to_yuv yuv_to_rgb rot90 transpose "
        "per_image_standardization",
    ),
    "image.central_crop": lambda x, y, i: tf.image.central_crop(_image(x, y, i), 0.5),
    "image.crop": lambda x, y, i: tf.image.crop_to_bounding_box(_image(x, y, i), 1, 0, 5, 2),
    "image.pad": lambda x, y, i: tf.image.pad_to_bounding_box(_image(x, y, i), 1, 2, 12, 9),
    "image.adjust_brightness": lambda x, y, i: tf.image.adjust_brightness(_image(x, y, i), 0.2),
    "image.adjust_contrast": lambda x, y, i: tf.image.adjust_contrast(_image(x, y, i), 2.0),
    "math.floormod": lambda x, y, i: tf.math.floormod(i - 2, 3),
    "math.floordiv": lambda x, y, i: (i - 2) // 3,
    "math.truncatediv": lambda x, y, i: tf.truncatediv(i - 2, 3),
    "math.xlogy": lambda x, y, i: tf.math.xlogy(tf.nn.relu(x), tf.abs(y)),
    "math.reduce_euclidean_norm": lambda x, y, i: tf.math.reduce_euclidean_norm(x, -1),
    "gather_nd": lambda x, y, i: tf.gather_nd(x, i[:, :1] * 0),
    "gather batch": lambda x, y, i: tf.gather(x, i[:, :3], axis=2, batch_dims=1),
    "mean of small integers": lambda x, y, i: tf.reduce_mean(tf.cast(i * 30, tf.int8), 1),
    "mean of large integers": lambda x, y, i: tf.reduce_mean(i * 2**29, 1, keepdims=True),
    "all of nothing": lambda x, y, i: tf.reduce_all(x[:, :0] > 0, 1),
    "any of nothing": lambda x, y, i: tf.reduce_any(x[:, :0] > 0, 1),
    "bucketize": lambda x, y, i: tf.raw_ops.Bucketize(input=i, boundaries=[-0.5, 0.5, 2.0]),
    "bucketize NaN": lambda x, y, i: tf.raw_ops.Bucketize(
        input=tf.math.log(x), boundaries=[-0.5, 0.5]
    ),
    "mirror": lambda x, y, i: tf.pad(x, [[0, 0], [2, 1], [0, 3]], "SYMMETRIC"),
    "cumsum": lambda x, y, i: tf.cumsum(x, 1, exclusive=True, reverse=True),
    "slice": lambda x, y, i: x[:, i[0, 0] : i[0, 0] + 2, ::-2],
    "tensor_scatter": lambda x, y, i: tf.tensor_scatter_nd_add(
        x, tf.constant([[0, 1, 2], [0, 1, 2]]), tf.constant([1.0, 2.0])
    ),
    "one_hot": lambda x, y, i: tf.one_hot(i - 1, 3, on_value=2.0, off_value=-1.0, axis=1),
    "one_hot of a number": lambda x, y, i: tf.one_hot(i[0, 0], 3),
    "fake_quant": lambda x, y, i: tf.quantization.fake_quant_with_min_max_args(x, -2.0, 2.0),
}


REFUSED: dict[str, Function] = {
    "Cumprod": lambda x, y, i: K.cumprod(x, 1),
    "Erfinv": lambda x, y, i: K.erfinv(x),
    "InTopKV2": lambda x, y, i: K.in_top_k(i[:, 0], x[:, 0], 2),
    "does not have": lambda x, y, i: tf.math.real(tf.cast(x, tf.complex64)),
    "Svd": lambda x, y, i: K.svd(x, compute_uv=False),
    "AsString": lambda x, y, i: tf.strings.to_number(tf.strings.as_string(x)),
    "ScaleAndTranslate": lambda x, y, i: tf.image.resize(_image(x, y, i), (3, 2), antialias=True),
    "depends on data": lambda x, y, i: tf.unique(i[0])[0],
}


def on_x(function: Callable[..., Any]) -> Function:
    """Return a function of one argument as one of the three inputs."""
    return lambda x, y, i: function(x)
