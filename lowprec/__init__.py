"""Low precision (bf16, int8) for neural networks on CPUs."""
