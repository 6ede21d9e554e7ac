"""Small configurations of the text towers that OpenCLIP takes from Hugging Face."""

from __future__ import annotations

from pathlib import Path

from transformers import M2M100Config, MT5Config, PretrainedConfig, RobertaConfig, XLMRobertaConfig

from tests.imgsearch.encoder.architectures import TEXT

VOCABULARY = TEXT["vocab_size"]
BERT = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
CONFIGS: dict[str, PretrainedConfig] = {
    "roberta-base": RobertaConfig(**BERT, vocab_size=VOCABULARY, max_position_embeddings=80),
    "xlm-roberta": XLMRobertaConfig(**BERT, vocab_size=VOCABULARY, max_position_embeddings=80),
    "google/mt5": MT5Config(num_layers=1, d_model=64, num_heads=2, d_kv=32, d_ff=128, vocab_size=VOCABULARY),
    "facebook/nllb": M2M100Config(
        encoder_layers=1,
        decoder_layers=1,
        d_model=64,
        encoder_attention_heads=2,
        encoder_ffn_dim=128,
        vocab_size=VOCABULARY,
    ),
}
"""By the beginning of the name on the hub."""


def save_config(name: str, folder: Path) -> Path:
    """Writes the configuration for the tower with this name on the hub; returns the folder."""
    config = next(config for start, config in CONFIGS.items() if name.startswith(start))
    config.save_pretrained(folder)
    return folder
