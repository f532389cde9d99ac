"""JSON schemas as models get them: without what pydantic adds for people, checked when written by hand."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError, from_json, to_json

from agentscope.tool._guards import is_list, is_mapping

Schema = dict[str, Any]

_NAMED: Final = frozenset({"properties", "$defs", "patternProperties", "dependentSchemas", "definitions"})
_VALUES: Final = frozenset({"default", "const", "enum", "examples", "discriminator", "required"})


class SchemaGenerator(GenerateJsonSchema):
    """Pydantic's generator. An alternative that JSON can't hold is an error; a default that it can't is left out."""

    def encode_default(self, dft: Any) -> Any:
        """See ``GenerateJsonSchema.encode_default``."""
        encoded = super().encode_default(dft)
        try:
            return json_value(encoded)
        except ValueError as error:
            raise PydanticSerializationError(str(error)) from error

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """See ``GenerateJsonSchema.emit_warning``."""
        if kind == "skipped-choice":
            raise PydanticInvalidForJsonSchema(detail)


def without_titles(schema: Any) -> Any:
    """A copy without the titles of a schema and of those inside it; a property that is called "title" stays."""
    if is_list(schema):
        return [without_titles(item) for item in schema]
    if not is_mapping(schema):
        return schema
    bare: Schema = {}
    for key, value in schema.items():
        if key in _VALUES:
            bare[key] = value
        elif key in _NAMED:
            bare[key] = {name: without_titles(inner) for name, inner in value.items()}
        elif key != "title":
            bare[key] = without_titles(value)
    return bare


def in_order(schema: Mapping[str, Any]) -> Schema:
    """The schema of an object in the order in which people read it; what is empty but its properties is left out."""
    ordered: Schema = {"type": "object", "properties": schema.get("properties", {})}
    rest = {key: value for key, value in schema.items() if key not in ordered and key != "$defs"}
    ordered |= {key: value for key, value in rest.items() if key != "required" or value}
    if schema.get("$defs"):
        ordered["$defs"] = schema["$defs"]
    return ordered


def without_properties(schema: Mapping[str, Any], names: Collection[str]) -> Schema:
    """The schema of an object without those properties."""
    properties = {name: inner for name, inner in schema.get("properties", {}).items() if name not in names}
    required = [name for name in schema.get("required", ()) if name not in names]
    return in_order({**schema, "properties": properties, "required": required})


def json_value(value: Any) -> Any:
    """The value as JSON holds it. Raises ``ValueError`` when it can't."""
    return from_json(to_json(value), allow_inf_nan=False)


def check_tool_schema(schema: Any) -> Schema:
    """What a tool's schema that was written by hand says about the tool: name, description and parameters.

    Raises ``ValueError`` when it has not the form that vendors take.
    """
    form = '{"type": "function", "function": {"name": …, "description": …, "parameters": {"type": "object", …}}}'
    match schema:
        case {"type": "function", "function": {"parameters": {}}}:
            function: Schema = schema["function"]
            wrong = _wrong(function)
        case _:
            function, wrong = {}, "it has another shape"
    if wrong is not None:
        raise ValueError(f"this json_schema is not {form}: {wrong}")
    return function


def _wrong(function: Schema) -> str | None:
    for key in ("name", "description"):
        if not isinstance(function.get(key, ""), str):
            return f"its {key} is not a string"
    parameters: Schema = function["parameters"]
    if parameters.get("type", "object") != "object":
        return f"its parameters are of type {parameters['type']!r}, not 'object'"
    properties: Any = parameters.get("properties", {})
    if not is_mapping(properties) or not all(map(is_mapping, properties.values())):
        return "its properties are not schemas by name"
    required: Any = parameters.get("required", [])
    if not is_list(required) or not all(name in properties for name in required):
        return "what it requires is not a list of names of its properties"
    return None
