"""The schema of recipes: mergekit's YAML as immutable values, plus surgeon's keys for the ends of the network.

Source of the mergekit part: its configuration documentation and the observed behaviour of release 0.1.5. Ranges are
half-open. This module does not check what needs the donors (does a layer exist, do donors fit); a plan does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

End = Literal["embeddings", "final_norm", "lm_head"]
ENDS: tuple[End, ...] = ("embeddings", "final_norm", "lm_head")
DTYPES = ("bfloat16", "float16", "float32")


class Frozen(BaseModel):
    """An immutable model. It ignores unknown keys, because `document` reports them with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _model_text(value: Any) -> Any:
    """mergekit's dict form of a model reference as the string `path[@revision][+lora]`."""
    if not isinstance(value, Mapping):
        return value
    inner, lora = value.get("model"), value.get("lora")
    if value.get("override_architecture") is not None:
        raise ValueError("override_architecture is not supported: remove it")
    inner = {"path": inner} if isinstance(inner, str) else inner
    known = isinstance(inner, Mapping) and inner.get("path") and set(inner) <= {"path", "revision"}
    if not known or not set(value) <= {"model", "lora", "override_architecture"}:
        raise ValueError("a model is a path or Hub id, or {model: {path: ..., revision: ...}, lora: {path: ...}}")
    assert isinstance(inner, Mapping)
    text = str(inner["path"]) + (f"@{inner['revision']}" if inner.get("revision") else "")
    if isinstance(lora, str):
        text += f"+{lora}"
    elif isinstance(lora, Mapping) and lora.get("path"):
        text += f"+{lora['path']}"
    return text


def _whole(value: Any) -> Any:
    """A whole number in the forms that mergekit accepts: 16, 16.0 and "16"."""
    integral = isinstance(value, float) and value.is_integer()
    if integral or (isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,18}\s*", value)):
        value = int(value)
    if type(value) is not int:
        raise ValueError("a layer is a whole number, counted from 0")
    if abs(value) >= 10**18:
        raise ValueError("the layer number is too large")
    return value


def _settings(value: Any) -> Any:
    """Refuse numbers that are not finite, at any depth."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
        elif isinstance(part, float) and not math.isfinite(part):
            raise ValueError("a parameter is not a finite number")
    return value


def _known_dtype(value: str | None) -> str | None:
    if value is None:
        return None
    name = value.removeprefix("torch.")
    name = {
        "bf16": "bfloat16",
        "fp16": "float16",
        "half": "float16",
        "fp32": "float32",
        "float": "float32",
    }.get(name, name)
    if name not in DTYPES:
        raise ValueError(f"{value!r} is not one of {', '.join(DTYPES)}")
    return name


def _tokenizer_text(value: Any) -> str:
    """The reference of a donor, without the prefix `model:` of older recipes."""
    return str(_model_text(value)).removeprefix("model:").strip()


Parameters = Annotated[dict[str, Any], BeforeValidator(_settings)]
"""Parameter name -> scalar, gradient (list of numbers), or list of `{filter, value}`."""

ModelRef = Annotated[str, BeforeValidator(_model_text), Field(min_length=1)]
DtypeName = Annotated[str | None, AfterValidator(_known_dtype)]
LayerRange = tuple[Annotated[int, BeforeValidator(_whole)], Annotated[int, BeforeValidator(_whole)]]


class Source(Frozen):
    """A range of one donor's layers: `[start, stop)`, or all layers if `layer_range` is absent."""

    model: ModelRef
    layer_range: LayerRange | None = None
    parameters: Parameters = Field(default_factory=dict)


class Slice(Frozen):
    """A run of output layers. One source is copied; several are blended by the method of the slice or the recipe."""

    sources: tuple[Source, ...] = Field(min_length=1)
    merge_method: str | None = None
    base_model: ModelRef | None = None
    parameters: Parameters = Field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether there is one source and no other key: such a slice can be cut and joined without other changes."""
        return len(self.sources) == 1 and not (
            self.merge_method or self.base_model or self.parameters or self.sources[0].parameters
        )


class WholeModel(Frozen):
    """An entry of `models:`: all layers of one donor."""

    model: ModelRef
    parameters: Parameters = Field(default_factory=dict)


class EndSource(Frozen):
    """The source of an end of the network: a donor, or, for the head, the embedding (`tie: true`)."""

    model: ModelRef | None = None
    tie: bool = False
    parameters: Parameters = Field(default_factory=dict)


class EdgePolicy(Frozen):
    """Overrides the slices at the outermost layers: copies of one donor, or a blend with other parameters.

    Attributes:
        count: number of outermost layers.
        model: copy these layers from this donor: the layers that the slices take from it there, else the donor's
            outermost layers.
        parameters: values that override all others; a gradient runs over these `count` layers.
        taper: let the values change from `parameters` at the outermost layer to the slices' values, which are reached
            at the first layer after the `count` layers.
    """

    count: Annotated[int, BeforeValidator(_whole), Field(ge=0)]
    model: ModelRef | None = None
    parameters: Parameters = Field(default_factory=dict)
    taper: bool = False


def _positive(value: Any) -> Any:
    value = _whole(value)
    if value < 1:
        raise ValueError("a multiple is a whole number from 1")
    return value


def _row_form(value: Any) -> str:
    return "row" if isinstance(value, TokenRow) or (isinstance(value, Mapping) and "kind" in value) else "donor"


class TokenRow(Frozen):
    """The source of a token's row: zeros, or a donor's row for a token or an id."""

    kind: Literal["zero", "model_token"]
    model: ModelRef | None = None
    token: str | None = None
    token_id: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> TokenRow:
        if self.kind == "model_token" and (self.model is None or (self.token is None) == (self.token_id is None)):
            raise ValueError("model_token needs a model and either token or token_id")
        return self


class TokenOverride(Frozen):
    """The source of one token's row in donors that lack the token; with `force`, in all donors."""

    source: Annotated[Annotated[ModelRef, Tag("donor")] | Annotated[TokenRow, Tag("row")], Discriminator(_row_form)]
    force: bool = False


class TokenizerSettings(Frozen):
    """The output's vocabulary (`union`, `base`, or a donor's), tokens with special rows, and padding of the table."""

    source: ModelRef = "union"
    tokens: dict[str, TokenOverride] = Field(default_factory=dict)
    pad_to_multiple_of: Annotated[int, BeforeValidator(_positive)] | None = None


class Recipe(Frozen):
    """A whole recipe; see `recipes/` for examples."""

    merge_method: str = "passthrough"
    name: str | None = None
    base_model: ModelRef | None = None
    models: tuple[WholeModel, ...] | None = None
    slices: tuple[Slice, ...] | None = None
    modules: dict[str, Any] | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: DtypeName = None
    out_dtype: DtypeName = None
    embeddings: EndSource | None = None
    final_norm: EndSource | None = None
    lm_head: EndSource | None = None
    first_layers: EdgePolicy | None = None
    last_layers: EdgePolicy | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    tokenizer_source: Annotated[str, BeforeValidator(_tokenizer_text), Field(min_length=1)] | None = None
    tokenizer: TokenizerSettings | None = None
    chat_template: str | None = None

    def end(self, end: End) -> EndSource | None:
        """The source of one end; None if the slices decide."""
        value = getattr(self, end)
        assert value is None or isinstance(value, EndSource)
        return value

    def model_refs(self) -> list[str]:
        """Every donor that the recipe names, each once: slices in order, then base model and ends."""
        return list(dict.fromkeys(self._refs()))

    def _refs(self) -> Iterator[str]:
        for entry in self.models or ():
            yield entry.model
        for part in self.slices or ():
            for source in part.sources:
                yield source.model
        for part in self.slices or ():
            if part.base_model:
                yield part.base_model
        if self.base_model:
            yield self.base_model
        for end in ENDS:
            value = self.end(end)
            if value and value.model:
                yield value.model
        for edge in (self.first_layers, self.last_layers):
            if edge and edge.model:
                yield edge.model

    def tokenizer_refs(self) -> Iterator[str]:
        """The sources of tokenizers and token rows: donors, other folders, or the words `union` and `base`."""
        if self.tokenizer_source is not None:
            yield self.tokenizer_source
        if self.tokenizer is not None:
            yield self.tokenizer.source
            for token in self.tokenizer.tokens.values():
                ref = token.source if isinstance(token.source, str) else token.source.model
                if ref is not None:
                    yield ref

    def with_models(self, rename: Mapping[str, str]) -> Recipe:
        """The recipe with renamed donors; `rename` maps old references to new ones."""

        def walk(value: Any) -> Any:
            if isinstance(value, dict):
                return {
                    key: rename.get(item, item)
                    if key in {"model", "base_model", "source", "tokenizer_source"} and isinstance(item, str)
                    else walk(item)
                    for key, item in value.items()
                }
            return [walk(item) for item in value] if isinstance(value, (list, tuple)) else value

        return Recipe.model_validate(walk(self.model_dump(exclude_unset=True)))

    def explicit(self, depth_of: Callable[[str], int]) -> tuple[Slice, ...]:
        """The slices with every range filled in; `models:` becomes one slice.

        Args:
            depth_of: gives the number of layers of a donor by its reference.
        """
        if self.models is not None and self.slices is None:
            sources = tuple(
                Source(model=entry.model, layer_range=(0, depth_of(entry.model)), parameters=entry.parameters)
                for entry in self.models
            )
            return (Slice(sources=sources),) if sources else ()
        return tuple(
            part.model_copy(
                update={
                    "sources": tuple(
                        source
                        if source.layer_range is not None
                        else source.model_copy(update={"layer_range": (0, depth_of(source.model))})
                        for source in part.sources
                    )
                }
            )
            for part in self.slices or ()
        )
