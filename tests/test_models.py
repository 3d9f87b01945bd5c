"""What the wire carries becomes values: exact, immutable, and refused where it is not as documented."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import cattrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async import Image, ImagePage, ImagesAPI, ImageStatus, ImageType, RateLimit, converter, errors
from tests.support.servers import Server, content, image_document, reply
from tests.support.slow import examples

INTEGERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
OFFSETS = st.integers(min_value=-14 * 60, max_value=14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
DATES = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001  (hypothesis wants bounds without a zone)
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.one_of(st.just(UTC), OFFSETS),
)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


IMAGES = st.builds(
    Image,
    id=st.integers(min_value=1, max_value=2**63 - 1),
    name=st.text(),
    type=optional(st.one_of(st.sampled_from(ImageType), st.text().map(ImageType))),
    distribution=optional(st.text()),
    slug=optional(st.text()),
    public=optional(st.booleans()),
    regions=st.lists(st.text(), max_size=3).map(tuple),
    tags=optional(st.lists(st.text(), max_size=3).map(tuple)),
    min_disk_size=optional(INTEGERS),
    size_gigabytes=optional(st.floats(allow_nan=False, allow_infinity=False)),
    created_at=optional(DATES),
    status=optional(st.one_of(st.sampled_from(ImageStatus), st.text().map(ImageStatus))),
    description=optional(st.text()),
    error_message=optional(st.text()),
)
PAGES = st.builds(
    ImagePage,
    images=st.lists(IMAGES, max_size=2).map(tuple),
    total=optional(INTEGERS),
    rate_limit=optional(st.builds(RateLimit, limit=INTEGERS, remaining=INTEGERS, reset=INTEGERS)),
    page=INTEGERS,
    next_page=optional(INTEGERS),
)
TEXTS = st.text(max_size=5)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXTS,
    "type": optional(TEXTS),
    "distribution": optional(TEXTS),
    "slug": optional(TEXTS),
    "public": optional(st.booleans()),
    "regions": st.lists(TEXTS, max_size=3),
    "tags": optional(st.lists(TEXTS, max_size=3)),
    "min_disk_size": optional(INTEGERS),
    "size_gigabytes": optional(st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**40)),
    "created_at": optional(st.just("2014-11-04T22:23:02Z")),
    "status": optional(TEXTS),
    "description": optional(TEXTS),
    "error_message": optional(TEXTS),
}
DOCUMENTS = st.fixed_dictionaries({"id": st.integers(1, 2**63 - 1)}, optional=FIELDS)

IMAGE = converter.structure(image_document(7, slug="a", tags=["x"]), Image)
MODELS = [
    IMAGE,
    RateLimit(limit=5000, remaining=4999, reset=1_700_000_000),
    ImagePage(images=(IMAGE,), total=1),
]


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301


# --- values ---


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_models_are_frozen_slotted_hashable_values(model: Any) -> None:
    name = next(iter(attrs.asdict(model)))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(model, name, getattr(model, name))
    assert not hasattr(model, "__dict__")
    twin = copy.deepcopy(model)
    assert (again(model), twin, hash(twin)) == (model, model, hash(model))
    assert {model: 1}[twin] == 1


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_models_are_attrs_classes_to_whoever_knows_attrs(model: Any) -> None:
    fields = [field.name for field in attrs.fields(model.__class__)]
    assert attrs.evolve(model) == model
    assert list(attrs.asdict(model, recurse=False)) == fields
    assert list(cattrs.Converter().unstructure(model)) == fields
    shown = ", ".join(f"{name}={getattr(model, name)!r}" for name in fields)
    assert repr(model) == f"{type(model).__name__}({shown})"


@pytest.mark.parametrize("model", [Image, ImagePage, RateLimit])
def test_models_take_keywords_only(model: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        model(1)


def test_all_but_the_id_may_be_missing() -> None:
    image = converter.structure({"id": 1}, Image)
    assert image == Image(id=1)
    assert (image.name, image.regions) == ("", ())
    others = {"id", "name", "regions"}
    assert {getattr(image, field.name) for field in attrs.fields(Image) if field.name not in others} == {None}


@pytest.mark.parametrize(
    "name",
    [
        "type", "distribution", "slug", "public", "tags", "min_disk_size", "size_gigabytes", "created_at",
        "status", "description", "error_message",
    ],
)  # fmt: skip
def test_row_40_null_is_none(name: str) -> None:
    assert getattr(converter.structure(image_document(7) | {name: None}, Image), name) is None


def test_row_38_unknown_fields_are_ignored() -> None:
    document = image_document(1, tomorrow={"deep": [1, {"deeper": None}]}, id2="x")
    assert converter.structure(document, Image) == converter.structure(image_document(1), Image)


# --- open enums ---


@pytest.mark.parametrize("enum", [ImageStatus, ImageType])
def test_row_39_an_unknown_value_compares_as_its_string_and_says_so(enum: Any) -> None:
    value = enum("hibernated")
    assert isinstance(value, enum)
    assert (value, f"{value}", value.value) == ("hibernated", "hibernated", "hibernated")
    assert not value.is_known
    assert (hash(value), {"hibernated": 1}[value]) == (hash("hibernated"), 1)
    assert value == enum("hibernated")
    assert value not in list(enum)
    for twin in (again(value), copy.copy(value), copy.deepcopy(value)):
        assert twin == value
        assert isinstance(twin, enum)
        assert not twin.is_known


@pytest.mark.parametrize(
    ("enum", "values"),
    [
        (ImageStatus, ["NEW", "available", "pending", "deleted", "retired"]),
        (ImageType, ["base", "snapshot", "backup", "custom", "admin"]),
    ],
)
def test_documented_values_are_known(enum: Any, values: list[str]) -> None:
    assert [member.value for member in enum] == values
    for value in values:
        assert enum(value).is_known
        assert enum(value) is again(enum(value))
        assert {value: 1}[enum(value)] == 1


@pytest.mark.parametrize("value", ["", "Available", "new", "available "])
def test_a_value_that_is_nearly_known_is_unknown(value: str) -> None:
    assert not ImageStatus(value).is_known
    assert ImageStatus(value) == value


@pytest.mark.parametrize("value", [None, 1, True, b"available"])
def test_what_is_no_string_is_no_status(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid ImageStatus"):
        ImageStatus(value)


# --- dates ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-05-04T22:23:02Z", datetime(2020, 5, 4, 22, 23, 2, tzinfo=UTC)),
        ("2020-05-04T22:23:02.25Z", datetime(2020, 5, 4, 22, 23, 2, 250_000, tzinfo=UTC)),
        ("2020-05-04T22:23:02.123456Z", datetime(2020, 5, 4, 22, 23, 2, 123_456, tzinfo=UTC)),
        ("2020-05-04T22:23:02-05:30", datetime(2020, 5, 5, 3, 53, 2, tzinfo=UTC)),
    ],
)
def test_row_42_dates_keep_their_fraction_and_offset_and_are_aware(text: str, expected: datetime) -> None:
    created = converter.structure(image_document(created_at=text), Image).created_at
    assert created is not None
    assert created.tzinfo is not None
    assert created == expected
    if text.endswith("-05:30"):
        assert created.utcoffset() == -timedelta(hours=5, minutes=30)


@pytest.mark.parametrize(
    "value",
    ["2020-05-04T22:23:02", "2020-05-04", "", "yesterday", "2020-13-04T22:23:02Z", 1588630982, 1.5, True, {}],
)
async def test_row_42_a_bad_date_is_refused(server: Server, api: ImagesAPI, value: object) -> None:
    server.script(reply({"image": image_document(created_at=value)}))
    with pytest.raises(errors.DecodeError, match=r"\$\.image\.created_at"):
        await api.get(7)


# --- what does not fit ---


def wrong(name: str, *values: object) -> list[tuple[str, object]]:
    return [(name, value) for value in values]


WRONG = [
    *wrong("id", True, "1", "7555620", None, 1.5, 2**63, [], {}),
    *wrong("name", None, 1, True, []),
    *wrong("regions", "nyc3", [1], [None], {}),
    *wrong("tags", "x", [1], [None], {}),
    *wrong("public", "false", 0, 1, []),
    *wrong("min_disk_size", "20", True, 1.5),
    *wrong("size_gigabytes", "2.34", True, []),
    *((name, 1) for name in ("slug", "description", "distribution", "error_message", "status", "type")),
    *wrong("status", []),
    *wrong("type", []),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
async def test_row_41_and_row_43_a_wrong_type_is_an_error_that_names_its_place(
    server: Server, api: ImagesAPI, name: str, value: object
) -> None:
    images = [image_document(number) for number in (1, 2, 3)]
    images.append(image_document(4) | {name: value})
    server.script(reply({"images": images, "links": {}, "meta": {"total": 4}}))
    with pytest.raises(errors.DecodeError) as caught:
        await api.list_page()
    assert f"$.images[3].{name}" in str(caught.value)
    assert len(server.received) == 1


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_the_converter_refuses_the_same(name: str, value: object) -> None:
    document = image_document(4) | {name: value}
    with pytest.raises(errors.DecodeError, match=rf"\$\.{name}"):
        converter.structure(document, Image)
    with pytest.raises(errors.DecodeError, match=rf"\$\.{name}"):
        converter.loads(json.dumps(document).encode(), Image)


def test_an_image_without_an_id_is_refused() -> None:
    with pytest.raises(errors.DecodeError, match="id"):
        converter.structure({"name": "x"}, Image)


BODIES: dict[str, bytes] = {
    "row_31_empty": b"",
    "row_31_spaces": b"   ",
    "half": b'{"images": [',
    "trailing": b'{"images": []} x',
    "html": b"<html></html>",
    "row_36_list": b"[]",
    "null": b"null",
    "string": b'"images"',
    "row_37_no_images": b'{"links": {}, "meta": {"total": 0}}',
    "row_37_null_images": b'{"images": null}',
    "images no list": b'{"images": {}}',
    "image null": b'{"images": [null]}',
    "row_33_bad_utf_8": b'{"images": [{"id": 1, "name": "\xff\xfe"}]}',
    "row_33_utf_16": '{"images": []}'.encode("utf-16"),
    "row_34_deep": b'{"images": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "row_35_nan": b'{"images": [{"id": 1, "size_gigabytes": NaN}]}',
    "row_35_infinity": b'{"images": [{"id": 1, "size_gigabytes": Infinity}]}',
    "row_35_huge_number": b'{"images": [{"id": 1, "size_gigabytes": 1e999}]}',
    "row_35_5000_digits": b'{"images": [{"id": ' + b"9" * 5000 + b"}]}",
    "total no number": b'{"images": [], "meta": {"total": "1"}}',
    "next no string": b'{"images": [], "links": {"pages": {"next": 2}}}',
}
# No JSON: spoilt on its way, and worth another attempt.
SPOILT = [
    BODIES[name]
    for name in (
        "row_31_empty",
        "row_31_spaces",
        "half",
        "trailing",
        "html",
        "row_33_bad_utf_8",
        "row_33_utf_16",
        "row_34_deep",
        "row_35_nan",
        "row_35_infinity",
        "row_35_huge_number",
        "row_35_5000_digits",
    )
]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_is_no_listing_is_an_error_and_never_an_empty_list(
    server: Server, api: ImagesAPI, body: bytes
) -> None:
    server.script(*[content(body)] * 4)
    with pytest.raises(errors.DecodeError) as caught:
        await api.list_page()
    assert not caught.value.outcome_unknown
    assert len(server.received) == (4 if body in SPOILT else 1)


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/html"}, {"content-type": "application/octet-stream"}, {"content-type": ""}],
)
async def test_row_32_the_content_type_does_not_matter_when_the_body_is_right(
    server: Server, api: ImagesAPI, headers: dict[str, str]
) -> None:
    body = json.dumps({"image": image_document(7)}).encode()
    server.script(content(body, headers=headers))
    assert (await api.get(7)).id == 7


async def test_row_33_a_byte_order_mark_is_no_trouble(server: Server, api: ImagesAPI) -> None:
    server.script(content(b"\xef\xbb\xbf" + json.dumps({"image": image_document(7)}).encode()))
    assert (await api.get(7)).id == 7


async def test_row_29_any_success_with_a_good_body_is_a_success(server: Server, api: ImagesAPI) -> None:
    for status in (200, 201, 202, 203):
        server.script(reply({"image": image_document(7)}, status=status))
        assert (await api.get(7)).id == 7


# --- the converter ---


@given(image=IMAGES)
@settings(max_examples=examples(150), deadline=None)
def test_structure_undoes_unstructure(image: Image) -> None:
    mapping = converter.unstructure(image)
    assert isinstance(mapping, dict)
    assert json.loads(json.dumps(mapping)) == mapping
    back = converter.structure(mapping, Image)
    assert back == image
    assert converter.unstructure(back) == mapping
    if image.created_at is not None and back.created_at is not None:
        assert back.created_at.utcoffset() == image.created_at.utcoffset()
    assert type(back.status) is type(image.status)


@given(document=DOCUMENTS)
@settings(max_examples=examples(150), deadline=None)
def test_unstructure_undoes_structure(document: dict[str, object]) -> None:
    mapping = converter.unstructure(converter.structure(document, Image))
    assert {name: mapping[name] for name in document} == document
    assert {
        mapping[name] for name in mapping if name not in document and name not in ("name", "regions")
    } <= {None}


@given(image=IMAGES)
@settings(max_examples=examples(80), deadline=None)
def test_loads_undoes_dumps(image: Image) -> None:
    data = converter.dumps(image)
    assert converter.loads(data, Image) == image
    assert json.loads(data) == converter.unstructure(image)


@given(page=PAGES)
@settings(max_examples=examples(60), deadline=None)
def test_pages_go_there_and_back(page: ImagePage) -> None:
    assert converter.structure(converter.unstructure(page), ImagePage) == page
    assert converter.loads(converter.dumps(page), ImagePage) == page


def test_an_image_structures_to_itself() -> None:
    assert converter.structure(IMAGE, Image) is IMAGE


def test_lists_of_images_go_through_the_converter() -> None:
    data = converter.dumps([IMAGE, IMAGE])
    assert converter.loads(data, list[Image]) == [IMAGE, IMAGE]
    assert converter.structure(converter.unstructure([IMAGE]), list[Image]) == [IMAGE]


def test_the_rate_limit_tells_when_it_resets() -> None:
    limit = RateLimit(limit=5000, remaining=0, reset=1_700_000_000)
    assert limit.reset_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
