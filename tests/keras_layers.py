"""Every layer of keras.layers that means something at inference, with arguments and inputs.

`LAYERS` and `REFUSED` are compared with keras.layers itself by
tests/adapters/tensorflow/test_layers.py: a new layer shows up as a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

L = keras.layers
OPEN = 6  # what an open size is when the layer runs


@dataclass(frozen=True)
class Given:
    """One input of a layer.

    Attributes:
        shape: Without the batch; None is open.
        below: Integers in [0, below); 0: normal numbers.
        scale: Of the normal numbers.
        dtype: Of the integers.
    """

    shape: tuple[int | None, ...]
    below: int = 0
    scale: float = 1.0
    dtype: str = "int32"

    def array(self, batch: int, seed: int) -> np.ndarray:
        """Return an input for a batch."""
        random = np.random.default_rng(batch + 100 * seed)
        shape = (batch, *(OPEN if size is None else size for size in self.shape))
        if self.below:
            return random.integers(0, self.below, shape).astype(self.dtype)
        return (random.standard_normal(shape) * self.scale).astype(np.float32)

    def symbolic(self) -> keras.KerasTensor:
        """Return keras.Input for it."""
        return keras.Input(self.shape, dtype=self.dtype if self.below else "float32")


@dataclass(frozen=True)
class Case:
    """A layer, what it is given, and its name among the cases."""

    name: str
    make: Callable[[], Any]
    inputs: tuple[Given, ...]

    @property
    def layer(self) -> str:
        """The layer's name in keras.layers."""
        return self.name.partition(" ")[0]


ROW = (Given((6,)),)
SEQUENCE = (Given((11, 6)),)
IMAGE = (Given((9, 8, 6)),)
VOLUME = (Given((5, 6, 7, 4)),)
OPEN_SEQUENCE = (Given((None, 6)),)
OPEN_IMAGE = (Given((None, None, 6)),)
OPEN_VOLUME = (Given((None, None, None, 4)),)
FIRST_IMAGE = (Given((6, 9, 8)),)
FIRST_SEQUENCE = (Given((6, 11)),)
PIXELS = (Given((9, 8, 3), scale=100.0),)
BYTES = (Given((9, 8, 3), below=256, dtype="uint8"),)
INDICES = (Given((7,), below=10),)
TWO_ROWS = ROW * 2
TWO_IMAGES = IMAGE * 2
QUERY_VALUE = (Given((5, 8)), Given((7, 8)))
QUERY_VALUE_KEY = (*QUERY_VALUE, Given((7, 8)))

# Names, inputs, and the arguments of each case.
_TABLE: list[tuple[str, tuple[Given, ...], list[dict[str, Any]]]] = [
    # ---- Convolutions ----
    (
        "Conv1D",
        SEQUENCE,
        [
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": 4, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"},
            {"filters": 4, "kernel_size": 3, "groups": 2, "padding": "same", "activation": "relu"},
            {"filters": 4, "kernel_size": 3, "dilation_rate": 3, "padding": "same"},
        ],
    ),
    ("Conv1D", OPEN_SEQUENCE, [{"filters": 4, "kernel_size": 4, "strides": 3, "padding": "same"}]),
    ("Conv1D", FIRST_SEQUENCE, [{"filters": 4, "kernel_size": 3, "data_format": "channels_first"}]),
    (
        "Conv2D",
        IMAGE,
        [
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": (2, 4), "padding": "same"},
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": (4, 2), "strides": (3, 2), "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": 3},
            {"filters": 4, "kernel_size": 1, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 3, "dilation_rate": (2, 1), "padding": "same"},
            {"filters": 4, "kernel_size": 2, "dilation_rate": 3},
            {"filters": 4, "kernel_size": 3, "groups": 2, "use_bias": False},
            {"filters": 6, "kernel_size": 3, "groups": 6, "padding": "same"},
            {"filters": 4, "kernel_size": 3, "activation": "gelu"},
        ],
    ),
    (
        "Conv2D",
        OPEN_IMAGE,
        [
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": 3, "padding": "valid"},
            {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "same"},
        ],
    ),
    (
        "Conv2D",
        FIRST_IMAGE,
        [
            {"filters": 4, "kernel_size": 3, "data_format": "channels_first"},
            {
                "filters": 5,
                "kernel_size": 4,
                "strides": 2,
                "padding": "same",
                "data_format": "channels_first",
            },
        ],
    ),
    (
        "Conv3D",
        VOLUME,
        [
            {"filters": 3, "kernel_size": 3, "padding": "same"},
            {"filters": 3, "kernel_size": (2, 3, 4), "strides": (1, 2, 3), "padding": "same"},
            {"filters": 3, "kernel_size": 2, "dilation_rate": 2},
            {"filters": 4, "kernel_size": 2, "groups": 2},
        ],
    ),
    ("Conv3D", OPEN_VOLUME, [{"filters": 3, "kernel_size": 2, "strides": 2, "padding": "same"}]),
    (
        "Conv1DTranspose",
        SEQUENCE,
        [
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": 4, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 3, "strides": 3, "output_padding": 1},
            {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": 3, "padding": "same"},
        ],
    ),
    (
        "Conv1DTranspose",
        OPEN_SEQUENCE,
        [{"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}],
    ),
    (
        "Conv2DTranspose",
        IMAGE,
        [
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 4, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": 2},
            {"filters": 4, "kernel_size": 2, "strides": 3, "padding": "valid"},
            {"filters": 4, "kernel_size": (3, 5), "strides": (2, 3), "padding": "same"},
            {
                "filters": 4,
                "kernel_size": 3,
                "strides": 2,
                "padding": "same",
                "output_padding": 0,
            },
            {
                "filters": 4,
                "kernel_size": 3,
                "strides": 2,
                "padding": "same",
                "output_padding": 1,
            },
            {
                "filters": 4,
                "kernel_size": 4,
                "strides": 3,
                "padding": "valid",
                "output_padding": (2, 1),
            },
            {"filters": 4, "kernel_size": 3, "dilation_rate": 2},
        ],
    ),
    (
        "Conv2DTranspose",
        OPEN_IMAGE,
        [
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": 2},
        ],
    ),
    (
        "Conv2DTranspose",
        FIRST_IMAGE,
        [{"filters": 4, "kernel_size": 3, "strides": 2, "data_format": "channels_first"}],
    ),
    (
        "Conv3DTranspose",
        VOLUME,
        [
            {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 3, "kernel_size": (2, 3, 2), "strides": (2, 1, 3)},
            {
                "filters": 3,
                "kernel_size": 3,
                "strides": 2,
                "padding": "same",
                "output_padding": (0, 1, 0),
            },
        ],
    ),
    (
        "DepthwiseConv1D",
        SEQUENCE,
        [
            {"kernel_size": 3, "padding": "same"},
            {"kernel_size": 4, "strides": 2, "depth_multiplier": 2, "padding": "same"},
            {"kernel_size": 3, "dilation_rate": 2},
        ],
    ),
    (
        "DepthwiseConv2D",
        IMAGE,
        [
            {"kernel_size": 3, "padding": "same"},
            {"kernel_size": 4, "strides": 2, "depth_multiplier": 2, "padding": "same"},
            {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
            {"kernel_size": (2, 3), "dilation_rate": (2, 3)},
            {"kernel_size": 5, "strides": 2},
        ],
    ),
    ("DepthwiseConv2D", OPEN_IMAGE, [{"kernel_size": 3, "dilation_rate": 2, "padding": "same"}]),
    (
        "SeparableConv1D",
        SEQUENCE,
        [
            {"filters": 4, "kernel_size": 3, "padding": "same", "depth_multiplier": 2},
            {"filters": 4, "kernel_size": 3, "dilation_rate": 2},
        ],
    ),
    (
        "SeparableConv2D",
        IMAGE,
        [
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 2, "depth_multiplier": 2, "dilation_rate": 2},
        ],
    ),
    # ---- Pooling ----
    (
        "AveragePooling1D MaxPooling1D",
        SEQUENCE,
        [
            {"pool_size": 2},
            {"pool_size": 3, "strides": 2, "padding": "same"},
            {"pool_size": 4, "strides": 1},
        ],
    ),
    (
        "AveragePooling2D MaxPooling2D",
        IMAGE,
        [
            {"pool_size": 2},
            {"pool_size": 3, "strides": 2, "padding": "same"},
            {"pool_size": (2, 4), "strides": (1, 3), "padding": "same"},
            {"pool_size": (4, 2), "strides": 1},
        ],
    ),
    (
        "AveragePooling2D MaxPooling2D",
        OPEN_IMAGE,
        [{"pool_size": 3, "strides": 2, "padding": "same"}, {"pool_size": 2}],
    ),
    (
        "AveragePooling2D MaxPooling2D",
        FIRST_IMAGE,
        [{"pool_size": 3, "strides": 2, "padding": "same", "data_format": "channels_first"}],
    ),
    (
        "AveragePooling3D MaxPooling3D",
        VOLUME,
        [{"pool_size": 2}, {"pool_size": (3, 2, 3), "strides": (2, 1, 2), "padding": "same"}],
    ),
    ("GlobalAveragePooling1D GlobalMaxPooling1D", SEQUENCE, [{}, {"keepdims": True}]),
    ("GlobalAveragePooling2D GlobalMaxPooling2D", IMAGE, [{}, {"keepdims": True}]),
    ("GlobalAveragePooling2D GlobalMaxPooling2D", OPEN_IMAGE, [{}]),
    ("GlobalAveragePooling2D", FIRST_IMAGE, [{"data_format": "channels_first"}]),
    ("GlobalAveragePooling3D GlobalMaxPooling3D", VOLUME, [{}, {"keepdims": True}]),
    ("AdaptiveAveragePooling1D AdaptiveMaxPooling1D", SEQUENCE, [{"output_size": 4}]),
    (
        "AdaptiveAveragePooling2D AdaptiveMaxPooling2D",
        IMAGE,
        [{"output_size": (4, 3)}, {"output_size": (3, 4)}],
    ),
    ("AdaptiveAveragePooling3D AdaptiveMaxPooling3D", VOLUME, [{"output_size": (2, 3, 4)}]),
    # ---- Sizes ----
    ("UpSampling1D", SEQUENCE, [{}, {"size": 3}]),
    ("UpSampling1D", OPEN_SEQUENCE, [{}]),
    (
        "UpSampling2D",
        IMAGE,
        [
            {},
            {"size": (3, 2), "interpolation": "bilinear"},
            {"size": 2, "interpolation": "bicubic"},
            {"size": (2, 3), "interpolation": "nearest"},
        ],
    ),
    ("UpSampling2D", OPEN_IMAGE, [{}]),
    ("UpSampling3D", VOLUME, [{}, {"size": (1, 2, 3)}]),
    (
        "Resizing",
        IMAGE,
        [
            {"height": 5, "width": 12},
            {"height": 14, "width": 4, "interpolation": "nearest"},
            {"height": 13, "width": 12, "interpolation": "bicubic"},
            {"height": 6, "width": 8, "crop_to_aspect_ratio": True},
            {"height": 6, "width": 8, "pad_to_aspect_ratio": True},
        ],
    ),
    ("Resizing", OPEN_IMAGE, [{"height": 5, "width": 12}]),
    ("CenterCrop", IMAGE, [{"height": 4, "width": 5}, {"height": 12, "width": 12}]),
    ("ZeroPadding1D", SEQUENCE, [{}, {"padding": (1, 3)}]),
    ("ZeroPadding2D", IMAGE, [{}, {"padding": ((1, 0), (2, 3))}]),
    ("ZeroPadding2D", OPEN_IMAGE, [{"padding": (2, 1)}]),
    ("ZeroPadding3D", VOLUME, [{}, {"padding": ((1, 0), (2, 3), (0, 1))}]),
    ("Cropping1D", SEQUENCE, [{}, {"cropping": (0, 3)}]),
    ("Cropping2D", IMAGE, [{"cropping": 1}, {"cropping": ((1, 0), (2, 3))}]),
    ("Cropping2D", OPEN_IMAGE, [{"cropping": ((1, 0), (2, 1))}]),
    ("Cropping3D", VOLUME, [{}, {"cropping": ((1, 0), (2, 3), (0, 1))}]),
    ("Reshape", IMAGE, [{"target_shape": (8, 9, 6)}, {"target_shape": (-1, 12)}]),
    ("Reshape", OPEN_SEQUENCE, [{"target_shape": (-1, 3)}]),
    ("Flatten", IMAGE, [{}]),
    ("Flatten", OPEN_SEQUENCE, [{}]),
    ("Flatten", FIRST_IMAGE, [{"data_format": "channels_first"}]),
    ("Permute", IMAGE, [{"dims": (3, 1, 2)}, {"dims": (2, 1, 3)}]),
    ("Permute", OPEN_SEQUENCE, [{"dims": (2, 1)}]),
    ("RepeatVector", ROW, [{"n": 3}]),
    # ---- Dense and products ----
    ("Dense", ROW, [{"units": 5}, {"units": 4, "use_bias": False, "activation": "softmax"}]),
    ("Dense", SEQUENCE, [{"units": 5, "activation": "tanh"}]),
    ("Dense", OPEN_SEQUENCE, [{"units": 5}]),
    ("Dense", IMAGE, [{"units": 5}]),
    (
        "EinsumDense",
        SEQUENCE,
        [
            {"equation": "abc,cd->abd", "output_shape": (None, 5), "bias_axes": "d"},
            {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
            {"equation": "...x,xy->...y", "output_shape": 4},
            {"equation": "abc,bd->adc", "output_shape": (3, 6)},
        ],
    ),
    (
        "Embedding",
        INDICES,
        [{"input_dim": 10, "output_dim": 4}, {"input_dim": 10, "output_dim": 4, "lora_rank": 2}],
    ),
    ("ReversibleEmbedding", INDICES, [{"input_dim": 10, "output_dim": 4}]),
    ("Dot", TWO_ROWS, [{"axes": 1}, {"axes": -1, "normalize": True}]),
    ("Dot", SEQUENCE * 2, [{"axes": (1, 1)}, {"axes": 2}, {"axes": (2, 2), "normalize": True}]),
    ("Attention", QUERY_VALUE, [{}, {"use_scale": True}, {"score_mode": "concat"}]),
    ("Attention", QUERY_VALUE_KEY, [{}]),
    ("AdditiveAttention", QUERY_VALUE, [{}, {"use_scale": False}]),
    # ---- Normalisations ----
    ("BatchNormalization", ROW, [{}, {"center": False, "scale": False}]),
    ("BatchNormalization", SEQUENCE, [{}]),
    ("BatchNormalization", IMAGE, [{}, {"axis": 1}, {"epsilon": 0.1, "scale": False}]),
    ("BatchNormalization", VOLUME, [{}]),
    ("LayerNormalization", ROW, [{}]),
    ("LayerNormalization", IMAGE, [{}, {"axis": (1, 2)}, {"axis": [1, 2, 3], "center": False}]),
    ("LayerNormalization", OPEN_SEQUENCE, [{}]),
    ("RMSNormalization", ROW, [{}]),
    ("RMSNormalization", IMAGE, [{}, {"axis": (-2, -1)}]),
    ("GroupNormalization", ROW, [{"groups": 3}]),
    (
        "GroupNormalization",
        IMAGE,
        [{"groups": 3}, {"groups": -1}, {"groups": 2, "axis": 1, "scale": False}][:2],
    ),
    ("GroupNormalization", OPEN_IMAGE, [{"groups": 2}]),
    ("UnitNormalization", ROW, [{}]),
    ("UnitNormalization", IMAGE, [{}, {"axis": 1}, {"axis": (1, 2)}]),
    (
        "Normalization",
        ROW,
        [
            {"mean": 0.5, "variance": 2.0},
            {"mean": [0.5, 1, 2, 3, 4, 5], "variance": [2.0, 1, 1, 1, 3, 1], "invert": True},
        ],
    ),
    ("Rescaling", IMAGE, [{"scale": 1 / 255.0}, {"scale": 2.0, "offset": -1.0}]),
    ("Rescaling", BYTES, [{"scale": 1 / 127.5, "offset": -1.0}]),
    # ---- Activations ----
    (
        "Activation",
        SEQUENCE,
        [{"activation": name} for name in ("relu", "swish", "hard_silu", "log_softmax")],
    ),
    ("ELU", SEQUENCE, [{}, {"alpha": 0.5}]),
    ("LeakyReLU", SEQUENCE, [{}, {"negative_slope": 0.01}]),
    ("PReLU", IMAGE, [{}, {"shared_axes": [1, 2]}]),
    (
        "ReLU",
        SEQUENCE,
        [
            {},
            {"max_value": 6.0},
            {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.5},
            {"threshold": 0.5},
        ],
    ),
    ("Softmax", SEQUENCE, [{}, {"axis": 1}, {"axis": (1, 2)}]),
    # ---- Several inputs ----
    ("Add Average Maximum Minimum Multiply Subtract", TWO_ROWS, [{}]),
    ("Add Multiply", TWO_IMAGES, [{}]),
    ("Add Maximum", (*IMAGE, Given((1, 1, 6))), [{}]),
    ("Average", IMAGE * 3, [{}]),
    ("Concatenate", TWO_IMAGES, [{}, {"axis": 1}]),
    ("Concatenate", (*OPEN_SEQUENCE, *OPEN_SEQUENCE), [{}, {"axis": 1}]),
    # ---- Only in training ----
    ("Dropout AlphaDropout GaussianDropout", SEQUENCE, [{"rate": 0.5}]),
    ("SpatialDropout1D", SEQUENCE, [{"rate": 0.5}]),
    ("SpatialDropout2D", IMAGE, [{"rate": 0.5}]),
    ("SpatialDropout3D", VOLUME, [{"rate": 0.5}]),
    ("GaussianNoise", SEQUENCE, [{"stddev": 0.5}]),
    ("ActivityRegularization", SEQUENCE, [{"l1": 0.5}]),
    ("Identity", SEQUENCE, [{}]),
    ("Masking", SEQUENCE, [{"mask_value": 0.0}]),
    ("RandomFlip RandomGrayscale", PIXELS, [{}]),
    (
        "RandomBrightness RandomColorDegeneration RandomContrast RandomHue RandomSaturation "
        "RandomSharpness RandomRotation RandomErasing RandomInvert RandomPerspective "
        "RandomElasticTransform RandomGaussianBlur",
        PIXELS,
        [{"factor": 0.3}],
    ),
    ("RandomPosterization", PIXELS, [{"factor": 3}]),
    ("RandomZoom", PIXELS, [{"height_factor": 0.2}]),
    ("RandomShear", PIXELS, [{"x_factor": 0.2}]),
    ("RandomTranslation", PIXELS, [{"height_factor": 0.2, "width_factor": 0.2}]),
    ("RandomColorJitter AugMix CutMix MixUp RandAugment", PIXELS, [{}]),
    ("RandomCrop", PIXELS, [{"height": 6, "width": 5}, {"height": 12, "width": 10}]),
    # ---- Preprocessing ----
    ("Solarization", PIXELS, [{"threshold_factor": 0.5}]),
    ("AutoContrast ContrastLimitedAdaptiveHistogramEqualization", PIXELS, [{}]),
    ("Discretization", ROW, [{"bin_boundaries": [-1.0, 0.0, 0.5]}]),
    (
        "Discretization",
        ROW,
        [
            {"bin_boundaries": [-1.0, 0.0, 0.5], "output_mode": mode}
            for mode in ("multi_hot", "count")
        ],
    ),
    (
        "CategoryEncoding",
        INDICES,
        [{"num_tokens": 10, "output_mode": mode} for mode in ("multi_hot", "count")],
    ),
    ("CategoryEncoding", (Given((1,), below=10),), [{"num_tokens": 10, "output_mode": "one_hot"}]),
    (
        "STFTSpectrogram",
        (Given((64, 1)),),
        [{"frame_length": 16, "frame_step": 8, "mode": mode} for mode in ("log", "magnitude")],
    ),
    (
        "MelSpectrogram",
        (Given((256,)),),
        [{"fft_length": 64, "sequence_stride": 32, "num_mel_bins": 8}],
    ),
]

# Layers that are made of other layers, or are called with more than inputs.
_MADE: list[tuple[str, tuple[Given, ...], Callable[[], Any]]] = [
    ("TimeDistributed", SEQUENCE, lambda: L.TimeDistributed(L.Dense(4))),
    ("TimeDistributed", (Given((3, 9, 8, 6)),), lambda: L.TimeDistributed(L.Conv2D(4, 3))),
    ("TimeDistributed", (Given((None, 6)),), lambda: L.TimeDistributed(L.Dense(4))),
    ("SpectralNormalization", IMAGE, lambda: L.SpectralNormalization(L.Conv2D(4, 3))),
    ("Pipeline", IMAGE, lambda: L.Pipeline([L.Rescaling(0.5), L.CenterCrop(4, 4)])),
    ("Wrapper", ROW, lambda: Wrapped(L.Dense(4))),
    ("Equalization", PIXELS, lambda: Called(L.Equalization())),
    ("Layer", ROW, lambda: Own()),
    ("InputLayer", ROW, lambda: keras.Sequential([L.InputLayer((6,)), L.Dense(2)])),
    ("Softmax", SEQUENCE, lambda: Masked(L.Softmax())),
    ("Masking", (Given((5, 6), below=2, dtype="float32"),), lambda: L.Masking(1.0)),
    ("GlobalAveragePooling1D", SEQUENCE, lambda: Masked(L.GlobalAveragePooling1D())),
    *(
        ("MultiHeadAttention", given, make)
        for given in (QUERY_VALUE, QUERY_VALUE_KEY)
        for make in (
            lambda: Called(L.MultiHeadAttention(2, 4)),
            lambda: Called(L.MultiHeadAttention(2, 4, value_dim=3, output_shape=5, use_bias=False)),
        )
    ),
    (
        "MultiHeadAttention",
        (Given((5, 8)), Given((5, 8))),
        lambda: Called(L.MultiHeadAttention(2, 4), use_causal_mask=True),
    ),
    (
        "MultiHeadAttention",
        (Given((None, 8)), Given((None, 8))),
        lambda: Called(L.MultiHeadAttention(2, 4)),
    ),
    ("GroupQueryAttention", QUERY_VALUE, lambda: Called(L.GroupQueryAttention(4, 4, 2))),
    ("Attention", (Given((5, 8)), Given((5, 8))), lambda: Listed(L.Attention())),
    (
        "ReversibleEmbedding",
        (Given((7, 4)),),
        lambda: Called(_built(L.ReversibleEmbedding(10, 4)), reverse=True),
    ),
    (
        "ReversibleEmbedding",
        (Given((7, 4)),),
        lambda: Called(_built(L.ReversibleEmbedding(10, 4, tie_weights=False)), reverse=True),
    ),
]

# Layers with loops; `recurrent` cases of their own look closer.
_RECURRENT: list[tuple[str, tuple[Given, ...], Callable[[], Any]]] = [
    ("LSTM", SEQUENCE, lambda: L.LSTM(4)),
    ("GRU", SEQUENCE, lambda: L.GRU(4, return_sequences=True)),
    ("SimpleRNN", SEQUENCE, lambda: L.SimpleRNN(4)),
    ("Bidirectional", SEQUENCE, lambda: L.Bidirectional(L.LSTM(4))),
    ("RNN", SEQUENCE, lambda: L.RNN(L.LSTMCell(4))),
    ("StackedRNNCells", SEQUENCE, lambda: L.RNN(L.StackedRNNCells([L.GRUCell(4), L.GRUCell(3)]))),
    ("ConvLSTM1D", (Given((4, 9, 3)),), lambda: L.ConvLSTM1D(4, 3)),
    ("ConvLSTM2D", (Given((4, 9, 8, 3)),), lambda: L.ConvLSTM2D(4, 3)),
    ("ConvLSTM3D", (Given((3, 4, 5, 4, 2)),), lambda: L.ConvLSTM3D(2, 2)),
]
CELLS: list[tuple[str, tuple[Given, ...], Callable[[], Any]]] = [
    ("LSTMCell", ROW, lambda: Celled(L.LSTMCell(4), 2)),
    ("GRUCell", ROW, lambda: Celled(L.GRUCell(4), 1)),
    ("SimpleRNNCell", ROW, lambda: Celled(L.SimpleRNNCell(4), 1)),
]

# Layers that cannot be translated, why, and one of them.
REFUSED: dict[str, str] = {
    "FlaxLayer": "runs JAX",
    "JaxLayer": "runs JAX",
    "TorchModuleWrapper": "runs PyTorch",
    "TFSMLayer": "a SavedModel of its own",
    "Lambda": "Python code; a file that holds one is refused by Keras' safe mode",
    "StringLookup": "strings and hash tables",
    "TextVectorization": "strings and hash tables",
    "IntegerLookup": "hash tables",
    "Hashing": "hashes of strings",
    "HashedCrossing": "hashes of strings",
    "MaxNumBoundingBoxes": "takes dictionaries of boxes, no tensor",
}


_WORDS = np.asarray(["a", "b", "c"])
_REFUSED: list[tuple[str, tuple[Given, ...], Callable[[], Any], str]] = [
    ("StringLookup", ROW, lambda: Worded(L.StringLookup(vocabulary=_WORDS)), "AsString|strings"),
    (
        "IntegerLookup",
        (Given((7,), below=10, dtype="int64"),),
        lambda: L.IntegerLookup(vocabulary=[1, 5, 7]),
        "LookupTableFind",
    ),
    (
        "Hashing",
        (Given((7,), below=10, dtype="int64"),),
        lambda: L.Hashing(num_bins=3),
        "StringToHashBucket",
    ),
]


class Worded(L.Layer):
    """A layer that takes words, on numbers that are written out."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, inputs: Any) -> Any:
        """Call the layer."""
        import tensorflow as tf

        return self.layer(tf.strings.as_string(inputs))

    def compute_output_shape(self, shape: Any) -> Any:
        """Keep the shape."""
        return shape

    def compute_output_spec(self, inputs: Any) -> Any:
        """Keep the shape; indices are integers."""
        return keras.KerasTensor(inputs.shape, "int64")


class Own(L.Layer):
    """A layer of the user's own."""

    def call(self, inputs: Any) -> Any:
        """Return what an expression makes."""
        return keras.ops.relu(inputs) * 2.0 - inputs[:, :1]


class Wrapped(L.Wrapper):
    """A wrapper of the user's own."""

    def call(self, inputs: Any) -> Any:
        """Return twice what the layer makes."""
        return self.layer(inputs) * 2.0


class Called(L.Layer):
    """A layer that takes its inputs one by one, or with arguments."""

    def __init__(self, layer: Any, **arguments: Any) -> None:
        super().__init__()
        self.layer, self.arguments = layer, arguments

    def call(self, inputs: Any) -> Any:
        """Call the layer."""
        given = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        if isinstance(self.layer, L.GroupQueryAttention) or len(given) < 3:
            return self.layer(*given, **self.arguments)
        query, value, key = given
        return self.layer(query, value, key=key, **self.arguments)


class Listed(L.Layer):
    """Attention with a causal mask."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, inputs: Any) -> Any:
        """Call the layer."""
        return self.layer(list(inputs), use_causal_mask=True)


class Masked(L.Layer):
    """A layer with a mask that is computed from its input."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, inputs: Any) -> Any:
        """Leave out what is below -0.5; a mask of steps where the layer takes steps."""
        mask = inputs > -0.5
        if not isinstance(self.layer, L.Softmax):
            mask = mask[:, :, 0]
        return self.layer(inputs, mask=mask)


class Celled(L.Layer):
    """One step of a recurrent layer."""

    def __init__(self, cell: Any, states: int) -> None:
        super().__init__()
        self.cell, self.states = cell, states

    def call(self, inputs: Any) -> Any:
        """Return the output of a step whose states are computed from the input."""
        state = keras.ops.tanh(inputs[:, :4])
        return self.cell(inputs, [state] * self.states)[0]


def _built(layer: Any) -> Any:
    layer.build((None, 7))
    return layer


def _argued(name: str, arguments: dict[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        given = dict(arguments)
        rank = given.pop("lora_rank", None)
        layer = getattr(L, name)(**given)
        if rank:
            layer.build((None, 7))
            layer.enable_lora(rank)
        return layer

    return make


def _cases() -> Iterator[Case]:
    for names, inputs, arguments in _TABLE:
        for name in names.split():
            for given in arguments:
                said = " ".join(f"{key}={value}" for key, value in given.items())
                opened = "open" if None in inputs[0].shape else f"{len(inputs)}x{inputs[0].shape}"
                yield Case(f"{name} {said} {opened}", _argued(name, given), inputs)
    for number, (name, inputs, make) in enumerate([*_MADE, *CELLS]):
        yield Case(f"{name} made {number}", make, inputs)


LAYERS: list[Case] = list(_cases())
REFUSALS: dict[str, tuple[Case, str]] = {
    name: (Case(name, make, inputs), reason) for name, inputs, make, reason in _REFUSED
}
RECURRENT: list[Case] = [
    Case(f"{name} loop {number}", make, inputs)
    for number, (name, inputs, make) in enumerate(_RECURRENT)
]


def seeded(layer: Any, seed: int = 0) -> None:
    """Give a layer or model weights that leave nothing trivial: statistics, gains, biases."""
    random = np.random.default_rng(seed)
    for weight in layer.weights:
        if "seed" in weight.path or weight.dtype not in ("float32", "float64"):
            continue
        positive = any(word in weight.path for word in ("variance", "gamma", "scale"))
        if positive:
            weight.assign(random.uniform(0.6, 1.4, weight.shape))
        elif len(weight.shape) < 2 or "alpha" in weight.path or "lora" in weight.path:
            weight.assign(random.normal(0.1, 0.2, weight.shape))


def alone(cases: Sequence[Case]) -> keras.Model:
    """Return a model with the layers of cases with the same inputs, one output for each."""
    inputs = [given.symbolic() for given in cases[0].inputs]
    fed = inputs if len(inputs) > 1 else inputs[0]
    made = {f"out{number}": case.make()(fed) for number, case in enumerate(cases)}
    model = keras.Model(inputs, made)
    seeded(model)
    return model


def between(cases: Sequence[Case]) -> keras.Model:
    """Return the same with a convolution or dense layer before and after each layer."""
    inputs = [given.symbolic() for given in cases[0].inputs]
    before = [_before(value, given) for value, given in zip(inputs, cases[0].inputs, strict=True)]
    fed = before if len(before) > 1 else before[0]
    made = {}
    for number, case in enumerate(cases):
        result = case.make()(fed)
        if len(result.shape) > 1 and result.shape[-1] is not None:
            result = _after(keras.ops.cast(result, "float32"))
        made[f"out{number}"] = result
    model = keras.Model(inputs, made)
    seeded(model)
    return model


def _before(value: Any, given: Given) -> Any:
    channels = given.shape[-1]
    if given.below or channels is None:
        return value
    if len(given.shape) == 3 and channels < 8:
        return L.Conv2D(channels, 3, padding="same", activation="relu")(value)
    return L.Dense(channels)(value)


def _after(value: Any) -> Any:
    if len(value.shape) == 4:
        return L.Conv2D(3, 1)(value)
    return L.Dense(3)(value)
