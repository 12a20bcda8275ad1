"""How decoders, encoders and second stacks name their tensors, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layout:
    """Tensor names of a decoder, relative to a base such as `model.`; `bases` are tried in order.

    Attributes:
        bases: what may stand before all other names.
        layers: what stands before a layer's index.
        embeddings: beginnings of what runs before the layers.
        final_norm: beginnings of what runs between the layers and the head.
        lm_head: beginnings of the head's names, without the base.
        beside: what stands before an index where a layer has more tensors elsewhere, and the layer that index 0 means.
        head_inside: whether the head's names begin with the base too.
        after: beginnings of whole names that run between the layers and the head too.
        twins: what is stored by one name where the head is tied, and by the other as well where it is not.
        kinds: model types that have this layout, where another has the same names but for the head.
    """

    bases: tuple[str, ...]
    layers: str
    embeddings: tuple[str, ...]
    final_norm: tuple[str, ...]
    lm_head: tuple[str, ...] = ("lm_head.",)
    beside: tuple[tuple[str, int], ...] = ()
    head_inside: bool = False
    after: tuple[str, ...] = ()
    twins: tuple[tuple[str, str], ...] = ()
    kinds: frozenset[str] = frozenset()


_BERT = Layout(
    ("bert.", "ernie.", "roformer.", "roc_bert.", "rembert.", ""),
    "encoder.layer.",
    ("embeddings.", "embeddings_project.", "encoder.embed_positions.", "encoder.embedding_hidden_mapping_in."),
    ("encoder.ln.", "encoder.LayerNorm.", "LayerNorm.", "pooler."),
    ("cls.predictions.decoder.", "cls.predictions.bias"),
    after=("cls.predictions.transform.", "cls.predictions.dense.", "cls.predictions.LayerNorm."),
    twins=(("cls.predictions.bias", "cls.predictions.decoder.bias"),),
)
_ROBERTA = replace(
    _BERT,
    bases=("roberta.", "data2vec_text.", "roberta_prelayernorm.", "camembert."),
    lm_head=("lm_head.decoder.", "lm_head.bias"),
    after=("lm_head.dense.", "lm_head.layer_norm."),
    twins=(("lm_head.bias", "lm_head.decoder.bias"),),
)
_DECODER = Layout(
    ("model.decoder.", "decoder."),
    "layers.",
    ("embed_tokens.", "embed_positions.", "layernorm_embedding.", "project_in."),
    ("final_layer_norm.", "layer_norm.", "project_out."),
    ("lm_head.", "lm_heads."),
)
# The encoder runs before the layers that are spliced, which attend to what it makes.
_TWO_STACKS = Layout(
    ("model.", ""),
    "decoder.layers.",
    ("shared.", "encoder.", "decoder.embed_tokens.", "decoder.embed_positions.", "decoder.layernorm_embedding."),
    ("decoder.layer_norm.",),
    after=("final_logits_bias",),
    twins=tuple(("shared.weight", f"{stack}.embed_tokens.weight") for stack in ("decoder", "encoder")),
)

LAYOUTS = (
    Layout(
        ("model.language_model.", "language_model.model.", "text_model.model.", "model.", ""),
        "layers.",
        ("embed_tokens.", "word_embeddings."),
        ("norm.", "final_layernorm.", "final_norm.", "embedding_norm.", "layer_norm.", "hyper_connection_mixer."),
        ("lm_head.", "head."),
    ),
    Layout(("gpt_neox.", "gpt_neox_japanese."), "layers.", ("embed_in.",), ("final_layer_norm.",), ("embed_out.",)),
    Layout(("biogpt.",), "layers.", ("embed_tokens.", "embed_positions."), ("layer_norm.",), ("output_projection.",)),
    Layout(("model.", ""), "layers.", ("embeddings.",), ("final_norm.",), ("decoder.",)),
    Layout(
        ("transformer.", ""),
        "h.",
        ("wte.", "wpe.", "word_embeddings.", "word_embeddings_layernorm.", "tokens_embed.", "positions_embed.", "w."),
        ("ln_f.", "layernorm."),
    ),
    Layout(("transformer.", ""), "blocks.", ("wte.", "wpe.", "emb_norm."), ("norm_f.",)),
    _DECODER,
    replace(_DECODER, lm_head=("output_projection.",), kinds=frozenset({"trocr"})),
    replace(_DECODER, lm_head=("proj_out.",), kinds=frozenset({"whisper"})),
    # What is called the norm of the embeddings runs after the layers.
    replace(
        _DECODER,
        embeddings=("embed_tokens.", "embed_positions."),
        final_norm=("layernorm_embedding.",),
        kinds=frozenset({"bigbird_pegasus"}),
    ),
    _TWO_STACKS,
    replace(_TWO_STACKS, lm_head=("proj_out.",), kinds=frozenset({"whisper"})),
    replace(
        _TWO_STACKS,
        embeddings=("shared.", "encoder.", "decoder.embed_tokens.", "decoder.embed_positions."),
        final_norm=("decoder.layernorm_embedding.",),
        kinds=frozenset({"bigbird_pegasus"}),
    ),
    Layout(
        ("prophetnet.",),
        "decoder.layers.",
        (
            "word_embeddings.",
            "encoder.",
            "decoder.word_embeddings.",
            "decoder.position_embeddings.",
            "decoder.ngram_embeddings.",
            "decoder.embeddings_layer_norm.",
        ),
        (),
        twins=tuple(("word_embeddings.weight", f"{stack}.word_embeddings.weight") for stack in ("decoder", "encoder")),
    ),
    Layout(("backbone.", ""), "layers.", ("embeddings.", "embedding."), ("norm_f.",)),
    # The norm of rwkv's embeddings is stored in its first layer.
    Layout(("rwkv.", ""), "blocks.", ("embeddings.", "blocks.0.pre_ln."), ("ln_out.", "out_norm."), ("head.",)),
    Layout(("backbone.",), "blocks.", ("embeddings.",), ("out_norm.",)),
    # hrm_text has two stacks that run in turns: a layer is the two of the same index.
    Layout(("model.", ""), "L_module.layers.", ("embed_tokens.", "z_L_init"), (), beside=(("H_module.layers.", 0),)),
    Layout(
        ("model.llm.",),
        "layers.",
        ("embed.", "embed_norm."),
        ("norm.", "attn_res.output_query"),
        ("unembed.",),
        beside=(("attn_res.attn_queries.", 1), ("attn_res.mlp_queries.", 0)),
        head_inside=True,
    ),
    Layout(
        ("cpmant.", ""),
        "encoder.layers.",
        ("input_embedding.", "segment_embedding.", "position_bias."),
        ("encoder.output_layernorm.",),
    ),
    # blt: a model of bytes cuts a text into patches, an encoder reads them, and after the layers a decoder writes them.
    Layout(
        ("model.", ""),
        "global_transformer.layers.",
        (
            "local_encoder.",
            "encoder_hash_tok_embedding.",
            "patcher.",
            "global_transformer.token_embedding_projection.",
        ),
        ("local_decoder.",),
    ),
    _BERT,
    _ROBERTA,
    replace(_ROBERTA, bases=("bert.",), kinds=frozenset({"bert-generation"})),
    replace(_BERT, bases=("electra.",), lm_head=("generator_lm_head.",), after=("generator_predictions.",), twins=()),
    replace(_BERT, bases=("git.",), lm_head=("output.",), after=(), twins=()),
    Layout(("reformer.",), "encoder.layers.", ("embeddings.",), ("encoder.layer_norm.",)),
    # xlm stores a layer in four lists.
    Layout(
        ("transformer.",),
        "attentions.",
        ("embeddings.", "position_embeddings.", "lang_embeddings.", "layer_norm_emb."),
        (),
        ("pred_layer.proj.",),
        beside=(("layer_norm1.", 0), ("ffns.", 0), ("layer_norm2.", 0)),
    ),
    Layout(("transformer.",), "layer.", ("word_embedding.", "mask_emb"), (), ("lm_loss.",)),
)
