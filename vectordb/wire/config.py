"""A collection's configuration as a message and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vectordb.arguments import whole
from vectordb.errors import InvalidArgument
from vectordb.metric import Metric
from vectordb.types import CollectionConfig, Durability, FieldSpec, FieldType, IndexSpec, QuantizationSpec, Tuning
from vectordb.wire.columns import checked_strings
from vectordb.wire.values import enum_from_number, enum_to_number, params_from_message, params_to_message
from vectordb_proto.v1 import types_pb2

_THRESHOLDS = tuple(field.name for field in fields(Tuning) if field.name != "durability")


def config_to_message(config: CollectionConfig, message: types_pb2.CollectionConfig) -> None:
    """Writes a configuration.

    Raises:
        InvalidArgument: A value has no place on the wire; the field is named.
    """
    message.name = _text(config.name, "name")
    message.dim = whole(config.dim, "dim")
    message.metric = enum_to_number(config.metric)  # type: ignore[assignment,unused-ignore]
    index_to_message(config.index, message.index)
    quantization_to_message(config.quantization, message.quantization)
    if config.fields is not None:
        message.fields.SetInParent()
        for path, spec in config.fields.items():
            entry = message.fields.fields[_text(path, "fields")]
            entry.type = enum_to_number(spec.type)  # type: ignore[assignment,unused-ignore]
            entry.unindexed = not spec.indexed
    message.analyzer = _text(config.analyzer, "analyzer")
    for name in _THRESHOLDS:
        setattr(message.tuning, name, whole(getattr(config.tuning, name), name))
    if config.tuning.durability is not None:
        message.tuning.durability = enum_to_number(config.tuning.durability)  # type: ignore[assignment,unused-ignore]


def config_from_message(message: types_pb2.CollectionConfig) -> CollectionConfig:
    """The configuration of a message; what is not set takes its default.

    Raises:
        InvalidArgument: An enum's number is unknown, or a parameter has no value.
    """
    declared = None
    if message.HasField("fields"):
        declared = {
            path: FieldSpec(enum_from_number(FieldType, spec.type, f"fields.{path}"), not spec.unindexed)
            for path, spec in message.fields.fields.items()
        }
    return CollectionConfig(
        name=message.name,
        dim=message.dim,
        metric=enum_from_number(Metric, message.metric, "metric", Metric.COSINE),
        index=index_from_message(message.index),
        quantization=quantization_from_message(message),
        fields=declared,
        tuning=_tuning(message.tuning),
        analyzer=message.analyzer or "standard",
    )


def index_to_message(index: IndexSpec, message: types_pb2.IndexSpec) -> None:
    """Writes an index kind and its parameters."""
    message.kind = _text(index.kind, "index")
    params_to_message(index.params, message.params, "index")


def index_from_message(message: types_pb2.IndexSpec) -> IndexSpec:
    """The index kind of a message; without one, ``auto``."""
    return IndexSpec(message.kind or "auto", params_from_message(message.params, "index"))


def quantization_to_message(quantization: QuantizationSpec | None, message: types_pb2.QuantizationSpec) -> None:
    """Writes a quantization; nothing for none, so that the field stays absent."""
    if quantization is not None:
        message.kind = _text(quantization.kind, "quantization")
        params_to_message(quantization.params, message.params, "quantization")


def quantization_from_message(holder: Any) -> QuantizationSpec | None:
    """The field ``quantization`` of a message, or None where it is absent."""
    if not holder.HasField("quantization"):
        return None
    message = holder.quantization
    return QuantizationSpec(message.kind, params_from_message(message.params, "quantization"))


def _tuning(message: types_pb2.Tuning) -> Tuning:
    given = {name: getattr(message, name) for name in _THRESHOLDS if message.HasField(name)}  # type: ignore[arg-type,unused-ignore]
    durability = enum_from_number(Durability, message.durability, "durability") if message.durability else None
    return Tuning(**given, durability=durability)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{field} is text, got {value!r:.60}", field=field)
    checked_strings([value], field)
    return value
