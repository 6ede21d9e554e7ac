"""Small tokenizers in the formats that the repositories of OpenCLIP's models have on the hub."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.programs import ROOT

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SIZE = 500
NAMES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
METASPACE = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")


def corpus() -> list[str]:
    return [
        *(ROOT / "README.md").read_text().splitlines(),
        *["Grüße aus Köln, ein schönes Foto", "日本語のテキスト"] * 20,
    ]


def t5(folder: Path) -> None:
    """SigLIP's: the padding is `</s>`."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = METASPACE
    _train(
        tokenizer,
        trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"),
    )
    _end_with(tokenizer, "$A", "</s>")
    _save(tokenizer, folder, "T5Tokenizer", extra_ids=0, pad_token="</s>", eos_token="</s>", unk_token="<unk>")


def gemma(folder: Path) -> None:
    """SigLIP2's."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    _train(tokenizer, trainers.BpeTrainer(vocab_size=2 * SIZE, special_tokens=special))
    _end_with(tokenizer, "$A", "<eos>")
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    _save(tokenizer, folder, "GemmaTokenizer", add_bos_token=False, add_eos_token=True, padding_side="right", **names)


def xlm_roberta(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = METASPACE
    _train(tokenizer, trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=SPECIAL[:4], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<mask>"])
    _end_with(tokenizer, "<s>", "$A", "</s>")
    _save(tokenizer, folder, "XLMRobertaTokenizer", **NAMES)


def nllb(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = METASPACE
    _train(tokenizer, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=SPECIAL[:4]))
    tokenizer.add_special_tokens(["deu_Latn", "eng_Latn"])
    _end_with(tokenizer, "eng_Latn", "$A", "</s>")
    languages = {"extra_special_tokens": ["deu_Latn", "eng_Latn"]}
    _save(tokenizer, folder, "NllbTokenizer", src_lang="eng_Latn", mask_token="<unk>", **languages, **NAMES)


def roberta(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=SPECIAL, initial_alphabet=alphabet))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    _save(tokenizer, folder, "RobertaTokenizer", **NAMES)


def bert(folder: Path) -> None:
    """CLIPA's."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special))
    _end_with(tokenizer, "[CLS]", "$A", "[SEP]")
    _save(tokenizer, folder, "BertTokenizer", pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]")


def generic(folder: Path) -> None:
    """As `PreTrainedTokenizerFast.save_pretrained` writes it."""
    xlm_roberta(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **NAMES)
    tokenizer.save_pretrained(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "t5": t5,
    "gemma": gemma,
    "xlm-roberta": xlm_roberta,
    "nllb": nllb,
    "roberta": roberta,
    "bert": bert,
    "generic": generic,
}


def sentencepiece_alone(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """T5's without tokenizer.json, as mT5's repositories have it."""
    model = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=SIZE, minloglevel=2, **ids
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    _save_config(folder, "T5Tokenizer", extra_ids=0, **NAMES)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def _train(tokenizer: tokenizers.Tokenizer, trainer: trainers.Trainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(corpus(), trainer)


def _end_with(tokenizer: tokenizers.Tokenizer, *template: str) -> None:
    special = [(token, tokenizer.token_to_id(token)) for token in template if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(template), special_tokens=special)


def _save(tokenizer: tokenizers.Tokenizer, folder: Path, kind: str, **config: Any) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    _save_config(folder, kind, **config)


def _save_config(folder: Path, kind: str, **config: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **config}))
