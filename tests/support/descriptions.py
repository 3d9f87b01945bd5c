"""OpenAPI descriptions of the API, to check responses against."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import jsonschema
import yaml

__all__ = ["DESCRIPTIONS", "PROVIDERS", "Description", "load"]

OWN = Path(__file__).with_name("openapi.yaml")
PROVIDERS = Path(
    os.environ.get("IMAGES_OPENAPI")
    or Path(__file__).parents[3] / "shared" / "reference" / "images-openapi.yaml"
)
"""The provider's own description, which is not part of this repository and may not be here."""

Document = dict[str, Any]


def load(path: Path) -> Document:
    document: Document = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    return document


@attrs.frozen
class Description:
    """A description, and the responses that it documents.

    Attributes:
        complete: whether it describes all that the emulator serves; the provider's lacks whole resources.
    """

    name: str
    document: Document
    complete: bool

    @classmethod
    def read(cls, name: str, path: Path, *, complete: bool) -> Description:
        return cls(name, _as_json_schema(load(path)), complete)

    def covers(self, path: str) -> bool:
        """Return whether it describes the resource of this path, such as `/v2/images`."""
        resource = path.split("/")[:3]
        return self.complete or any(each.split("/")[:3] == resource for each in self.document["paths"])

    def check(
        self, method: str, path: str, status: int, headers: Mapping[str, str], body: object | None
    ) -> None:
        """Fail unless the response is documented; without such an operation it must be an error.

        A response of a resource that the description does not cover passes.
        """
        if not self.covers(path):
            return
        answer = self._answer(method, path, status)
        content = answer.get("content", {})
        if body is None:
            assert not content, f"{self.name}: {method} {path} with {status} needs a body"
        else:
            assert content, f"{self.name}: {method} {path} with {status} has no body"
            assert headers["content-type"].partition(";")[0] == "application/json"
            self._validate(body, content["application/json"]["schema"])
        for name, header in answer.get("headers", {}).items():
            assert name in headers or not header.get("required"), f"{self.name}: {name} is missing"
            if name in headers:
                assert header["schema"]["type"] == "integer"
                self._validate(int(headers[name]), header["schema"])

    def _answer(self, method: str, path: str, status: int) -> Document:
        operation = self._operation(method, path)
        if operation is None:
            assert status in (404, 405), f"{self.name}: {method} {path} is not documented"
            return {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}}
        answers = operation["responses"]
        answer: Document | None = answers.get(str(status), answers.get("default"))
        assert answer is not None, f"{self.name}: {method} {path} does not document {status}"
        return answer

    def _operation(self, method: str, path: str) -> Document | None:
        for template, operations in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                found: Document | None = operations.get(method.lower())
                return found
        return None

    def _validate(self, value: object, schema: Document) -> None:
        root = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(
            root, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        ).validate(value)  # pyright: ignore[reportUnknownMemberType]


def _as_json_schema(node: Any) -> Any:
    """Return a schema of OpenAPI 3.0 as JSON Schema, which has the type null instead of `nullable`."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(node, dict):
        return node
    fields = cast("Document", node)
    # Examples are data, not schemas, and they are most of a description.
    plain = {
        key: _as_json_schema(value) for key, value in fields.items() if key not in ("example", "examples")
    }
    if plain.pop("nullable", False) is True:
        return {"anyOf": [plain, {"type": "null"}]}
    return plain


DESCRIPTIONS = [
    Description.read("ours", OWN, complete=True),
    *([Description.read("the provider's", PROVIDERS, complete=False)] if PROVIDERS.exists() else []),
]
