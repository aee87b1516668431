"""Neural Compressor's words and ours: tables without logic."""

from __future__ import annotations

FRAMEWORKS = (
    "tensorflow",
    "tensorflow_itex",
    "pytorch",
    "pytorch_fx",
    "pytorch_ipex",
    "onnxrt_qlinearops",
    "onnxrt_integerops",
    "onnxrt_qoperator",
    "onnxrt_qdq",
    "onnxrt_qdqops",
    "onnxrt_qlinear",
    "onnxrt_integer",
    "NA",
)
APPROACHES = {
    "post_training_static_quant": "int8",
    "post_training_dynamic_quant": "int8-dynamic",
    "post_training_auto_quant": "auto",
}
METHODS = {"minmax": "minmax", "kl": "entropy"}
SCHEMES = {"asym": "asymmetric", "sym": "symmetric"}
STRATEGIES = ("basic", "mse", "mse_v2", "conservative", "bayesian", "random", "exhaustive")
OBJECTIVES = {"performance": "latency", "modelsize": "size"}

# Sections that are no quantisation after training.
OTHER_SECTIONS = {
    "pruning": "lowprec does not prune",
    "distillation": "lowprec does not train",
    "auto_distillation": "lowprec does not train",
    "nas": "lowprec does not search architectures",
    "model_conversion": (
        "a model that was trained with Q/DQ operators runs as it is: export it to ONNX"
    ),
}

# Operator types of the frameworks -> ONNX's.
OPERATORS = {
    "Conv1d": ("Conv",),
    "Conv2d": ("Conv",),
    "Conv3d": ("Conv",),
    "Conv2D": ("Conv",),
    "Conv3D": ("Conv",),
    "DepthwiseConv2dNative": ("Conv",),
    "ConvTranspose2d": ("ConvTranspose",),
    "Conv2DBackpropInput": ("ConvTranspose",),
    "Linear": ("Gemm", "MatMul"),
    "MatMul": ("Gemm", "MatMul"),
    "BatchMatMul": ("MatMul",),
    "BatchMatMulV2": ("MatMul",),
    "matmul": ("MatMul",),
    "FullyConnected": ("Gemm", "MatMul"),
    "Embedding": ("Gather",),
    "MaxPool2d": ("MaxPool",),
    "AvgPool": ("AveragePool",),
    "AvgPool2d": ("AveragePool",),
    "AdaptiveAvgPool2d": ("GlobalAveragePool",),
    "ConcatV2": ("Concat",),
    "cat": ("Concat",),
    "add": ("Add",),
    "AddV2": ("Add",),
    "mul": ("Mul",),
    "BatchNorm2d": ("BatchNormalization",),
    "FusedBatchNormV3": ("BatchNormalization",),
    "LayerNorm": ("LayerNormalization",),
    "ReLU": ("Relu",),
    "softmax": ("Softmax",),
    "LSTM": ("LSTM",),
}

# Data sets and metrics of Neural Compressor that are not here.
OTHER_DATASETS = (
    "TFRecordDataset",
    "ImageRecord",
    "VOCRecord",
    "COCORecord",
    "COCORaw",
    "COCONpy",
    "style_transfer",
    "sparse_dummy_v2",
    "bert",
    "mzbert",
    "GLUE",
    "Imagenet",
)
OTHER_METRICS = ("SquadF1", "BLEU", "GLUE")
METRIC_NAMES = {"COCOmAPv2": "COCOmAP"}
OUTPUT_NAMES = {"num_detections": "detections"}  # of output_index_mapping, where they differ
# What ONNX's ResizeCropImagenet does beyond what is written.
ONNX_IMAGENET = {"std_value": [0.229, 0.224, 0.225], "data_format": "channels_first"}
# Transforms that do nothing here: images are decoded and are arrays already.
IDLE_TRANSFORMS = (
    "ParseDecodeImagenet",
    "ParseDecodeCoco",
    "ParseDecodeVoc",
    "DecodeImage",
    "ToPILImage",
    "ToNDArray",
    "QuantizedInput",
)
# Of onnxrt and TensorFlow: OpenCV's or TensorFlow's resampling, and one number means both sides.
SQUARE_SIZES = ("Resize", "RandomResizedCrop", "CropResize")
