"""The plain fields of a `data` declaration: the one place that lists them. Free of torch.

Registered as the primitive `DataFields` of module `std.data`, so that the compiler can hold a spec's fields
against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from detc.compiler.primitives import Primitive


class DataFields(Primitive):
    """How a data set is read and batched.

    workers: processes that prepare batches; 0 prepares them in the training process.
    on_error: what to do about a broken image or annotation: "skip" reports it and goes on, "stop" ends.
    empty: whether training uses images without objects.
    cache: "ram" keeps decoded images (at the size that the pipeline first fits them into) in memory, shared
        by all workers.
    bucket: batches of images of different sizes are padded to multiples of this, so that few shapes occur.
    group: "shape" makes training batches of only landscape or only portrait images.
    prefetch: batches that each worker prepares ahead.
    evaluate: metrics by name.
    """

    module = "std.data"
    workers: int = Field(2, ge=0)
    on_error: Literal["skip", "stop"] = "skip"
    empty: Literal["drop", "keep"] = "drop"
    cache: Literal["none", "ram"] = "none"
    bucket: int = Field(64, ge=1)
    group: Literal["none", "shape"] = "shape"
    prefetch: int = Field(2, ge=1)
    evaluate: dict[str, Primitive] = Field(default_factory=dict)


def options(fields: Mapping[str, Any]) -> DataFields:
    """The fields of a resolved `DataSpec`; names that are not in `DataFields` (own records) are left out."""
    known = {k: v for k, v in fields.items() if k in DataFields.model_fields}
    return DataFields.model_validate(known)
