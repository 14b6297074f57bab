"""Values on disk that there are few of: a collection's configuration and its manifest of segments.

Both are MessagePack maps (``codec.pack_map``): fields of newer releases are ignored in a configuration and kept in a
manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vectordb.metric import Metric
from vectordb.storage.codec import pack_map, unpack_map
from vectordb.types import (
    CollectionConfig,
    Durability,
    FieldSpec,
    FieldType,
    IndexSpec,
    QuantizationSpec,
    Tuning,
)

# -- manifest --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One sealed segment of a collection, as the manifest names it.

    Attributes:
        name: Name of its folder, a UUID in hex.
        lo: First offset that it covers.
        hi: End of the offsets that it covers (exclusive).
        rows: Rows in it, dead ones included.
        version: Tombstones and payload changes up to this version are folded in.
        index: The index built over it, or ``None`` while it is searched exactly.
        index_name: Name of that index's folder inside the segment's, or ``None``.
        state: ``sealed`` or ``indexed``; a later release may add states.
        next_index_name: Name of the folder, inside the segment's, of the index that a running reindex has built, or
            ``None``.
        extra: Fields of newer releases, kept as they are.
    """

    name: str
    lo: int
    hi: int
    rows: int
    version: int
    index: IndexSpec | None = None
    index_name: str | None = None
    state: str = "sealed"
    next_index_name: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def encode_manifest(segments: Iterable[SegmentEntry]) -> bytes:
    """The segments of a collection, in the order of their offsets."""
    return pack_map({"segments": [_segment_map(s) for s in segments]})


def decode_manifest(data: bytes) -> list[SegmentEntry]:
    """The segments of a collection. Raises Corruption."""
    return unpack_map("a manifest of segments", data, lambda value: [_segment(s) for s in value["segments"]])


def _segment_map(segment: SegmentEntry) -> dict[str, Any]:
    following = {} if segment.next_index_name is None else {"next_index_name": segment.next_index_name}
    return {
        **segment.extra,
        "name": segment.name,
        "lo": segment.lo,
        "hi": segment.hi,
        "rows": segment.rows,
        "version": segment.version,
        "index": None if segment.index is None else _spec_map(segment.index),
        "index_name": segment.index_name,
        "state": segment.state,
        **following,
    }


def _segment(value: dict[str, Any]) -> SegmentEntry:
    name, lo, hi, rows, version = (value.pop(key) for key in ("name", "lo", "hi", "rows", "version"))
    index = value.pop("index", None)
    return SegmentEntry(
        name=name,
        lo=lo,
        hi=hi,
        rows=rows,
        version=version,
        index=None if index is None else IndexSpec(index["kind"], index["params"]),
        index_name=value.pop("index_name", None),
        state=value.pop("state", "sealed"),
        next_index_name=value.pop("next_index_name", None),
        extra=value,
    )


# -- configuration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of index and quantization for a collection, as it was given."""

    index: IndexSpec
    quantization: QuantizationSpec | None


def encode_config(config: CollectionConfig, target: Choice | None = None) -> bytes:
    """A collection's configuration, and what it is being reindexed to."""
    tuning = config.tuning
    running = {} if target is None else {"reindex": _choice_map(target)}
    return pack_map(
        {
            "name": config.name,
            "dim": config.dim,
            "metric": config.metric.value,
            **_choice_map(Choice(config.index, config.quantization)),
            **running,
            "fields": None
            if config.fields is None
            else {name: {"type": f.type.value, "indexed": f.indexed} for name, f in config.fields.items()},
            "tuning": {
                **{name: getattr(tuning, name) for name in _TUNING_NUMBERS},
                "durability": None if tuning.durability is None else tuning.durability.value,
            },
            "analyzer": config.analyzer,
        }
    )


_TUNING_NUMBERS = tuple(name for name in Tuning.__dataclass_fields__ if name != "durability")


def decode_config(data: bytes) -> CollectionConfig:
    """A collection's configuration; tuning fields that are missing take their default. Raises Corruption."""
    return unpack_map("the configuration of a collection", data, _config)


def decode_target(data: bytes) -> Choice | None:
    """What a collection is being reindexed to, from its configuration; None where it is not. Raises Corruption."""

    def target(value: dict[str, Any]) -> Choice | None:
        running = value.get("reindex")
        return None if running is None else _choice(running)

    return unpack_map("the configuration of a collection", data, target)


def _config(value: dict[str, Any]) -> CollectionConfig:
    tuning = value["tuning"]
    durability = tuning.get("durability")
    choice, fields_ = _choice(value), value["fields"]
    return CollectionConfig(
        name=value["name"],
        dim=value["dim"],
        metric=Metric(value["metric"]),
        index=choice.index,
        quantization=choice.quantization,
        fields=None
        if fields_ is None
        else {name: FieldSpec(FieldType(f["type"]), f["indexed"]) for name, f in fields_.items()},
        tuning=Tuning(
            **{name: tuning[name] for name in _TUNING_NUMBERS if name in tuning},
            durability=None if durability is None else Durability(durability),
        ),
        analyzer=value.get("analyzer", "standard"),
    )


def _choice_map(choice: Choice) -> dict[str, Any]:
    quantization = choice.quantization
    return {
        "index": _spec_map(choice.index),
        "quantization": None if quantization is None else _spec_map(quantization),
    }


def _choice(value: dict[str, Any]) -> Choice:
    index, quantization = value["index"], value["quantization"]
    return Choice(
        IndexSpec(index["kind"], index["params"]),
        None if quantization is None else QuantizationSpec(quantization["kind"], quantization["params"]),
    )


def _spec_map(spec: IndexSpec | QuantizationSpec) -> dict[str, Any]:
    return {"kind": spec.kind, "params": dict(spec.params)}
