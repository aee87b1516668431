"""Models of transformers with random weights, built from configurations: small, no hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

VOCABULARY = 200
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True)
class HubModel:
    """A model, and what its forward takes for a batch of a length."""

    name: str
    build: Callable[[], Any]
    inputs: Callable[[int, int], dict[str, torch.Tensor]]
    has_length: bool = True
    data_only: bool = False


def tokens(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Return ids and a mask that hides the end of the second text."""
    ids = torch.randint(5, VOCABULARY, (batch, length))
    mask = torch.ones_like(ids)
    mask[1:2, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def tokens_with_types(batch: int, length: int) -> dict[str, torch.Tensor]:
    found = tokens(batch, length)
    types = torch.zeros_like(found["input_ids"])
    types[:, length // 2 :] = 1
    return {**found, "token_type_ids": types}


def picture(size: int) -> Callable[[int, int], dict[str, torch.Tensor]]:
    return lambda batch, length: {"pixel_values": torch.randn(batch, 3, size, size)}


def _config(kind: Any, **more: Any) -> Any:
    return kind(**{**TEXT, **more})


def _gpt2() -> Any:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, use_cache=False
    )
    return hf.GPT2LMHeadModel(config)


def _t5() -> Any:
    config = hf.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    return hf.T5EncoderModel(config)


def _vit() -> Any:
    return hf.ViTForImageClassification(
        _config(hf.ViTConfig, image_size=32, patch_size=8, num_labels=5)
    )


def _convnext() -> Any:
    config = hf.ConvNextConfig(
        num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], patch_size=4, num_labels=5
    )
    return hf.ConvNextForImageClassification(config)


def _resnet() -> Any:
    config = hf.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=5
    )
    return hf.ResNetForImageClassification(config)


def _wav2vec2() -> Any:
    config = hf.Wav2Vec2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 3),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return hf.Wav2Vec2ForCTC(config)


def _whisper_encoder() -> Any:
    config = hf.WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return hf.WhisperModel(config).get_encoder()


def _clip() -> Any:
    text = {**TEXT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    }
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))


def _clip_inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    found = tokens(batch, length)
    found["input_ids"][:, -1] = 2
    return {**found, "pixel_values": torch.randn(batch, 3, 32, 32)}


def _sound(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {"input_values": torch.randn(batch, 1000)}


def _spectrum(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {"input_features": torch.randn(batch, 16, 100)}


MODELS = [
    HubModel(
        "BertForSequenceClassification",
        lambda: hf.BertForSequenceClassification(_config(hf.BertConfig, num_labels=3)),
        tokens_with_types,
    ),
    HubModel(
        "DistilBertForTokenClassification",
        lambda: hf.DistilBertForTokenClassification(
            hf.DistilBertConfig(
                vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=64, num_labels=3
            )
        ),
        tokens,
    ),
    HubModel(
        "RobertaForMaskedLM",
        lambda: hf.RobertaForMaskedLM(_config(hf.RobertaConfig, pad_token_id=1)),
        tokens,
    ),
    HubModel(
        "AlbertModel (tied layers)",
        lambda: hf.AlbertModel(_config(hf.AlbertConfig, embedding_size=16)),
        tokens_with_types,
    ),
    HubModel(
        "ElectraForQuestionAnswering",
        lambda: hf.ElectraForQuestionAnswering(_config(hf.ElectraConfig, embedding_size=16)),
        tokens_with_types,
    ),
    HubModel("T5EncoderModel", _t5, tokens),
    HubModel("GPT2LMHeadModel, use_cache=False", _gpt2, tokens),
    HubModel("ViTForImageClassification", _vit, picture(32), has_length=False),
    HubModel("ConvNextForImageClassification", _convnext, picture(32), has_length=False),
    HubModel("ResNetForImageClassification", _resnet, picture(32), has_length=False),
    HubModel("Wav2Vec2ForCTC", _wav2vec2, _sound, has_length=False),
    HubModel("WhisperEncoder", _whisper_encoder, _spectrum, has_length=False),
    HubModel("CLIPModel", _clip, _clip_inputs),
]


def built(model: HubModel) -> Any:
    torch.manual_seed(0)
    return model.build().eval()
