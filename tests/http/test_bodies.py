"""The table of bodies: the converter and the check of a user's hooks know a body by it."""

from __future__ import annotations

import inspect
from typing import get_args, get_origin

import attrs
import pytest

from do_images_async import Image, converter
from do_images_async._http import bodies
from do_images_async._http.bodies import BODIES, holds_models, listed_field
from do_images_async.errors import DecodeError

DEFINED = [each for name, each in inspect.getmembers(bodies, inspect.isclass) if name.endswith("Body")]


def test_the_table_has_every_body() -> None:
    assert DEFINED
    assert [body.__name__ for body in DEFINED if body not in BODIES] == []


@pytest.mark.parametrize("body", DEFINED)
def test_a_line_names_the_field_and_the_model_that_the_body_declares(body: type) -> None:
    content = BODIES[body]
    if content is None:
        return
    field, model = content
    declared = attrs.fields_dict(attrs.resolve_types(body))[field].type
    listed = get_origin(declared) is tuple
    assert (get_args(declared)[0] if listed else declared) is model
    assert listed_field(body) == (field if listed else None)


def test_a_body_that_the_table_lacks_is_an_error() -> None:
    @attrs.frozen(kw_only=True)
    class Unlisted:
        image: Image

    with pytest.raises(KeyError, match="Unlisted"):
        holds_models(Unlisted(image=Image(id=1)), Unlisted)


@pytest.mark.parametrize("body", [body for body in DEFINED if listed_field(body)])
def test_null_items_of_any_listing_are_an_error_unless_the_total_is_0(body: type[object]) -> None:
    field = listed_field(body)
    assert field is not None
    empty = converter.structure({field: None, "meta": {"total": 0}}, body)
    assert getattr(empty, field) == ()
    with pytest.raises(DecodeError, match=rf"\$\.{field}"):
        converter.structure({field: None, "meta": {"total": 1}}, body)
