"""Small models that sentence-transformers itself made and saved: encoders of either kind, and another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

_SENTENCES = (
    "a cat sleeps on the mat and dreams of mice while rain falls over old harbour towns every second day"
    " query : passage Ships leave BEFORE dawn ; nobody waits . 検索 は 正確 である é"
)
WORDS = _SENTENCES.split()


def save(
    folder: Path,
    *,
    kind: Literal["bert", "roberta"] = "bert",
    pooling: str = "mean",
    normalise: bool = True,
    dense: bool = False,
    lowercase: bool = False,
    max_tokens: int | None = 24,
    prompts: Mapping[str, str] | None = None,
    half: bool = False,
    shape: Mapping[str, Any] | None = None,
) -> Path:
    """The folder, with a model of random weights: 32 wide, 2 layers, 4 heads."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    sizes: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 66,
        "initializer_range": 0.4,
        **(shape or {}),
    }
    torch.manual_seed(7)
    raw = folder.with_name(folder.name + "-encoder")
    config, encoder = (BertConfig, BertModel) if kind == "bert" else (RobertaConfig, RobertaModel)
    if kind == "roberta":
        sizes |= {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    made: Any = encoder(config(**sizes)).eval()
    (made.half() if half else made).save_pretrained(raw)
    _save_tokenizer(raw, kind)
    settings: dict[str, Any] = {} if max_tokens is None else {"max_seq_length": max_tokens}
    parts: list[Any] = [modules.Transformer(str(raw), do_lower_case=lowercase, **settings)]
    parts.append(modules.Pooling(32, pooling_mode=pooling))  # pyright: ignore[reportArgumentType]
    if dense:
        parts.append(modules.Dense(32, 8))
    if normalise:
        parts.append(modules.Normalize())
    model = SentenceTransformer(modules=parts, device="cpu", prompts=dict(prompts or {}))
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def _save_tokenizer(folder: Path, kind: str) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    begin, end = ("[CLS]", "[SEP]") if kind == "bert" else ("<s>", "</s>")
    special = ["[PAD]", "[UNK]", begin, end, "[MASK]"] if kind == "bert" else [begin, "<pad>", end, "<unk>"]
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*special, *dict.fromkeys(WORDS + letters + ["##" + letter for letter in letters])]
    unknown = next(piece for piece in special if "unk" in piece.lower())
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = {piece: pieces.index(piece) for piece in (begin, end)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} {end} $B {end}", special_tokens=list(ids.items())
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        pad_token=next(piece for piece in special if "pad" in piece.lower()),
        cls_token=begin,
        sep_token=end,
        model_max_length=60,
    ).save_pretrained(folder)
