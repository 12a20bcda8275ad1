"""Tensor names of decoders, encoders and encoder-decoders, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layout:
    """Tensor names of a model, relative to a base such as `model.`.

    Attributes:
        bases: possible prefixes of all names, tried in order.
        layers: the prefix before the index of a layer.
        embeddings: prefixes of tensors that run before the layers.
        final_norm: prefixes of tensors that run between the layers and the head.
        lm_head: prefixes of the head's tensors, without the base.
        extra_prefixes: (prefix, layer of index 0) of further tensors of layers.
        head_inside: whether the head's names begin with the base too.
        after: prefixes, without the base, of further tensors that run between the layers and the head.
        twins: pairs of names of the same tensor; a tied model stores the first only, an untied one both.
        kinds: model types with this layout, if another layout differs only in its ends.
    """

    bases: tuple[str, ...]
    layers: str
    embeddings: tuple[str, ...]
    final_norm: tuple[str, ...]
    lm_head: tuple[str, ...] = ("lm_head.",)
    extra_prefixes: tuple[tuple[str, int], ...] = ()
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
# The encoder runs before the layers that are spliced; they attend to its output.
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
    # In bigbird_pegasus, layernorm_embedding runs after the layers.
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
    # rwkv stores the norm of its embeddings in the first layer.
    Layout(("rwkv.", ""), "blocks.", ("embeddings.", "blocks.0.pre_ln."), ("ln_out.", "out_norm."), ("head.",)),
    Layout(("backbone.",), "blocks.", ("embeddings.",), ("out_norm.",)),
    # hrm_text has two stacks that run alternately: one layer consists of both layers with the same index.
    Layout(
        ("model.", ""), "L_module.layers.", ("embed_tokens.", "z_L_init"), (), extra_prefixes=(("H_module.layers.", 0),)
    ),
    Layout(
        ("model.llm.",),
        "layers.",
        ("embed.", "embed_norm."),
        ("norm.", "attn_res.output_query"),
        ("unembed.",),
        extra_prefixes=(("attn_res.attn_queries.", 1), ("attn_res.mlp_queries.", 0)),
        head_inside=True,
    ),
    Layout(
        ("cpmant.", ""),
        "encoder.layers.",
        ("input_embedding.", "segment_embedding.", "position_bias."),
        ("encoder.output_layernorm.",),
    ),
    # blt: a byte model cuts a text into patches, an encoder reads them, and a decoder after the layers writes them.
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
        extra_prefixes=(("layer_norm1.", 0), ("ffns.", 0), ("layer_norm2.", 0)),
    ),
    Layout(("transformer.",), "layer.", ("word_embedding.", "mask_emb"), (), ("lm_loss.",)),
)
