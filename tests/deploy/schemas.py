"""Documents against their schemas."""

from typing import Any, cast

import jsonschema
import kubernetes_validate

# Neither library has types.
_Draft7 = cast("Any", jsonschema).Draft7Validator
_validate = cast("Any", kubernetes_validate).validate


def problems(document: Any, schema: dict[str, Any]) -> dict[str, str]:
    """What is wrong, by the path of where it is."""
    _Draft7.check_schema(schema)
    return {error.json_path: error.message for error in _Draft7(schema).iter_errors(document)}


def check_manifest(manifest: dict[str, Any], version: str) -> None:
    """Raises when that version of Kubernetes refuses it, or ignores a part of it."""
    _validate(manifest, version, strict=True)
