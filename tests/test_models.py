"""Models: exact and immutable values; a response that is not as documented is refused."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import inspect
import json
import pickle
import pydoc
import subprocess
import sys
import weakref
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import cattrs
import pytest
from cattrs.strategies import configure_tagged_union, include_subclasses
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async import (
    Action,
    ActionPage,
    Image,
    ImagePage,
    ImagesAPI,
    ImageStatus,
    ImageType,
    Outcome,
    RateLimit,
    Region,
    converter,
    errors,
)
from do_images_async._http.bodies import ImageListBody
from do_images_async._whole import whole_listing
from tests.conftest import TOKEN
from tests.docs.programs import own_models
from tests.support.servers import NO_CONTENT, Answer, Server, content, image_document, reply
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


@attrs.frozen(kw_only=True)
class Mine(Image):
    """An image with a field that the API does not have yet."""

    owner: str = ""


def lowered(text: str) -> str:
    return text.lower()


class Undecorated(Image):
    """A subclass that only adds a method."""

    @property
    def label(self) -> str:
        return f"{self.id}: {self.name}"


def html_of(shown: Any) -> str:
    """Return the HTML that a notebook shows."""
    html: str = shown._repr_html_()
    return html


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
def test_attrs_functions_work_on_models(model: Any) -> None:
    fields = [field.name for field in attrs.fields(model.__class__)]
    assert attrs.evolve(model) == model
    assert list(attrs.asdict(model, recurse=False)) == fields
    assert list(cattrs.Converter().unstructure(model)) == fields


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


# --- what one does with an attrs class ---


def test_a_decorated_subclass_has_its_own_field_everywhere() -> None:
    mine = converter.structure(image_document(7, owner="ops"), Mine)
    assert (type(mine), mine.id, mine.owner) == (Mine, 7, "ops")
    assert converter.loads(converter.dumps(mine), Mine) == mine
    assert (
        attrs.asdict(mine)["owner"]
        == converter.unstructure(mine)["owner"]
        == mine.to_dict()["owner"]
        == "ops"
    )
    assert attrs.evolve(mine, owner="dev").owner == "dev"
    assert again(mine) == copy.deepcopy(mine) == mine
    assert "owner='ops'" in repr(mine)
    assert isinstance(mine, Image)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        mine.owner = "dev"  # type: ignore[misc]


def test_an_undecorated_subclass_keeps_the_fields_and_adds_methods() -> None:
    image = converter.structure(image_document(7), Undecorated)
    assert (type(image), image.label) == (Undecorated, "7: image 7")
    assert type(attrs.evolve(image, id=8)) is Undecorated
    assert converter.structure(converter.unstructure(image), Undecorated) == image


def test_an_undecorated_subclass_with_a_field_is_refused() -> None:
    class Lost(Image):
        owner: str = ""

    with pytest.raises(TypeError, match=r"Lost declares owner .* decorate it with @attrs.frozen"):
        converter.structure(image_document(7, owner="ops"), Lost)
    del Lost
    gc.collect()


def test_a_subclass_may_convert_and_validate_its_fields() -> None:
    @attrs.frozen(kw_only=True)
    class Checked(Image):
        owner: str = attrs.field(converter=lowered, validator=attrs.validators.max_len(3))

    assert converter.loads(b'{"id": 1, "owner": "OPS"}', Checked).owner == "ops"
    with pytest.raises(errors.DecodeError, match="owner"):
        converter.loads(b'{"id": 1, "owner": "nobody"}', Checked)
    with pytest.raises(errors.DecodeError, match=r"Expected `str`, got `null` - at `\$\.owner`"):
        converter.loads(b'{"id": 1, "owner": null}', Checked)


def test_models_can_be_referenced_weakly() -> None:
    image = Image(id=1)
    cache = weakref.WeakValueDictionary({1: image})
    assert cache[1] is image
    del image
    gc.collect()
    assert 1 not in cache


def test_fields_and_their_types_can_be_read() -> None:
    assert attrs.has(Image)
    resolved = attrs.fields(attrs.resolve_types(Image))
    assert resolved.regions.type == tuple[str, ...]
    assert resolved.status.type == ImageStatus | None
    assert [field.name for field in resolved][:3] == ["id", "name", "type"]
    assert attrs.asdict(IMAGE)["status"] is ImageStatus.AVAILABLE
    assert attrs.astuple(IMAGE)[0] == 7


def test_a_match_statement_can_match_a_model() -> None:
    match IMAGE:
        case Image(id=7, status=ImageStatus.AVAILABLE, slug=slug):
            assert slug == "a"
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("model", [Image, ImagePage, Action, RateLimit, Mine])
def test_help_and_signatures_name_every_field(model: Any) -> None:
    names = [field.name for field in attrs.fields(model)]
    signature = inspect.signature(model)
    assert list(signature.parameters) == names
    assert {parameter.kind for parameter in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    text = pydoc.plain(pydoc.render_doc(model))
    assert all(name in text for name in names)


@given(image=st.from_type(Image))
@settings(max_examples=examples(150), deadline=None)
def test_hypothesis_makes_images_that_load_back(image: Image) -> None:
    assert converter.loads(converter.dumps(image), Image) == image
    assert converter.structure(image.to_dict(), Image) == image


def test_a_status_that_a_hook_has_made_a_plain_string_is_unstructured_as_one() -> None:
    mapper = converter.copy()
    mapper.register_structure_hook(ImageStatus, lambda value, _: value)
    image = mapper.structure(image_document(7), Image)
    assert type(image.status) is str
    assert mapper.unstructure(image) == converter.unstructure(converter.structure(image_document(7), Image))
    assert mapper.loads(mapper.dumps(image), Image) == image


def test_cattrs_strategy_of_subclasses() -> None:
    @attrs.frozen(kw_only=True)
    class Owned(Image):
        owner: str

    mapper = converter.copy()
    include_subclasses(Image, mapper, subclasses=(Owned,))
    assert type(mapper.structure(image_document(7, owner="ops"), Image)) is Owned
    assert type(mapper.structure(image_document(7), Image)) is Image
    data = json.dumps({"images": [image_document(1), image_document(2, owner="ops")]}).encode()
    first, second = mapper.loads(data, ImageListBody).images
    assert (type(first), type(second)) == (Image, Owned)


def test_cattrs_strategy_of_tagged_subclasses() -> None:
    mapper = converter.copy()
    tagged = functools.partial(configure_tagged_union, tag_name="kind")
    include_subclasses(Image, mapper, subclasses=(Mine,), union_strategy=tagged)
    mapping = mapper.unstructure(Mine(id=1, owner="ops"), unstructure_as=Image)
    assert (mapping["kind"], mapping["owner"]) == ("Mine", "ops")
    assert mapper.structure(mapping, Image) == Mine(id=1, owner="ops")


def test_cattrs_strategy_of_tagged_unions() -> None:
    mapper = converter.copy()
    configure_tagged_union(Image | Action, mapper)
    for value in (Image(id=1), Action(id=1)):
        data = mapper.dumps(value, unstructure_as=Image | Action)
        assert mapper.loads(data, Image | Action) == value  # type: ignore[arg-type]


# --- what one shows ---


def test_a_repr_fits_two_lines() -> None:
    image = converter.structure(
        image_document(
            2**63 - 1, name="n" * 255, slug="s" * 255, description="d" * 1000, regions=["nyc3"] * 20
        ),
        Image,
    )
    assert len(repr(image)) < 240
    assert repr(IMAGE) == (
        "Image(id=7, name='image 7', type='snapshot', slug='a', public=False, regions=('nyc3',), "
        "size_gigabytes=2.34, status='available')"
    )
    page = ImagePage(images=(image,) * 200, total=1000, page=1, next_page=2)
    assert repr(page) == "ImagePage(images=<200>, total=1000, page=1, next_page=2)"
    assert repr(Action(id=1, type="transfer")) == (
        "Action(id=1, status=None, type='transfer', resource_id=None, region_slug=None)"
    )


@pytest.mark.parametrize(
    "model", [IMAGE, Action(id=1, region=Region(slug="nyc3", sizes=("s",))), *MODELS[2:]]
)
def test_to_dict_is_json_and_loads_back(model: Any) -> None:
    mapping = model.to_dict()
    assert json.loads(json.dumps(mapping)) == mapping
    kind: type[Any] = model.__class__
    assert list(mapping) == [field.name for field in attrs.fields(kind)]
    assert converter.structure(mapping, kind) == model


def test_to_dict_has_dates_and_enums_as_strings() -> None:
    mapping = converter.structure(image_document(status="hibernated"), Image).to_dict()
    assert mapping["created_at"] == "2020-05-04T22:23:02Z"
    assert (mapping["status"], type(mapping["status"])) == ("hibernated", str)
    assert mapping["regions"] == ["nyc3"]


def test_a_page_is_a_table_in_a_notebook_and_every_name_is_escaped() -> None:
    evil = "<script>alert('x')</script>&"
    document = image_document(1, name=evil, distribution=evil, slug=evil, regions=[evil], status=evil)
    page = ImagePage(images=(converter.structure(document, Image),), total=1)
    html = html_of(page)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 5
    assert (html.count("<tr>"), html.count("<td>1</td>")) == (2, 1)
    actions = ActionPage(actions=(Action(id=1, type=evil),), total=None)
    assert "<script>" not in html_of(actions)
    assert "page 1: 1 of unknown" in html_of(actions)


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
def test_a_status_must_be_a_string(value: Any) -> None:
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


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-12:00",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "0001-01-01T00:00:00Z",
    ],
)
def test_row_90_dates_at_the_ends_of_the_calendar_are_values_like_any_other(text: str) -> None:
    image = converter.structure(image_document(created_at=text, size_gigabytes=1e308), Image)
    assert image.to_dict()["created_at"] == text
    assert again(image) == image
    assert hash(image) == hash(copy.copy(image))
    page = ImagePage(images=(image,))
    assert (len(repr(image)) < 240, "9999" in repr(page)) == (True, False)
    assert "1e+308" in html_of(page)
    assert converter.loads(converter.dumps(image), Image) == image


@pytest.mark.parametrize("reset", [2**62, -(2**62), 2**40, 0])
def test_row_90_a_reset_beyond_any_date_is_the_calendars_end(reset: int) -> None:
    at = RateLimit(limit=1, remaining=1, reset=reset).reset_at
    assert at.tzinfo is not None
    assert (at > datetime(2000, 1, 1, tzinfo=UTC)) == (reset > 0)


# --- taken for what it means ---


async def test_row_89_a_float_without_a_fraction_is_the_integer(server: Server, api: ImagesAPI) -> None:
    odd = image_document(7) | {"id": 7.0, "min_disk_size": 20.0, "size_gigabytes": 2}
    server.script(reply({"images": [odd], "meta": {"total": 1.0}}))
    page = await api.list_page()
    (image,) = page.images
    assert (page.total, image.id, image.min_disk_size, image.size_gigabytes) == (1, 7, 20, 2.0)
    assert [type(image.id), type(image.min_disk_size), type(image.size_gigabytes)] == [int, int, float]


NO_INTEGERS = ["7.5", "9007199254740993.0", "-9007199254740993.0", "1e30", '"7"', "true"]


@pytest.mark.parametrize("number", NO_INTEGERS)
def test_row_89_a_number_that_may_be_another_integer_is_refused_with_and_without_hooks(number: str) -> None:
    hooked = converter.copy()
    hooked.register_structure_hook(str, lambda value, _: value)
    for each in (converter, hooked):
        assert each.loads(b'{"id": 9007199254740991.0}', Image).id == 2**53 - 1
        with pytest.raises(errors.DecodeError, match=r"Expected `int`, got `\w+` - at `\$.id`"):
            each.loads(b'{"id": %s}' % number.encode(), Image)


async def test_row_89_null_for_an_empty_list_is_an_empty_list(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"images": [image_document(7) | {"regions": None}], "meta": {"total": 1}}))
    assert (await api.list_page()).images[0].regions == ()
    server.script(reply({"images": None, "links": {}, "meta": {"total": 0}}))
    assert (await api.list_page()).images == ()
    server.script(reply({"actions": None, "links": {}, "meta": {"total": 0}}))
    assert (await api.actions.list_page(7)).actions == ()


@pytest.mark.parametrize("meta", [{"total": 5}, {"total": None}, {}, None, {"total": False}])
async def test_row_37_null_for_a_listing_that_is_not_empty_is_an_error(
    server: Server, api: ImagesAPI, meta: object
) -> None:
    server.script(reply({"images": None, "meta": meta}))
    with pytest.raises(errors.DecodeError, match=r"\$\.(images|meta\.total)"):
        await api.list_page()


@pytest.mark.parametrize("image_id", [0, -1, -(2**63), 2**63 - 1])
async def test_row_89_any_integer_in_an_answer_is_an_id(
    server: Server, api: ImagesAPI, image_id: int
) -> None:
    server.script(reply({"images": [image_document(image_id)], "meta": {"total": 1}}))
    assert (await api.list_page()).ids == (image_id,)


async def test_row_89_a_region_that_is_its_slug_alone(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"action": {"id": 1, "resource_id": 7, "region": "nyc3", "region_slug": "nyc3"}}))
    action = await api.actions.get(7, 1)
    assert action.region == Region(slug="nyc3")


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
        "row_35_nan",
        "row_35_infinity",
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


async def test_row_34_deeply_nested_json_in_an_unknown_field_does_no_harm(
    server: Server, api: ImagesAPI
) -> None:
    """Expect an error, or, where Python's stack is deep enough to skip the field, the images beside it."""
    deep = b"[" * 100_000 + b"]" * 100_000
    image = json.dumps(image_document(7)).encode()
    server.script(*[content(b'{"x": %b, "images": [%b]}' % (deep, image))] * 4)
    with contextlib.suppress(errors.DecodeError):
        assert [image.id for image in (await api.list_page()).images] == [7]


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


async def test_row_33_a_byte_order_mark_is_ignored(server: Server, api: ImagesAPI) -> None:
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
def test_pages_survive_a_round_trip(page: ImagePage) -> None:
    assert converter.structure(converter.unstructure(page), ImagePage) == page
    assert converter.loads(converter.dumps(page), ImagePage) == page


def test_an_image_structures_to_itself() -> None:
    assert converter.structure(IMAGE, Image) is IMAGE


def test_lists_of_images_go_through_the_converter() -> None:
    data = converter.dumps([IMAGE, IMAGE])
    assert converter.loads(data, list[Image]) == [IMAGE, IMAGE]
    assert converter.structure(converter.unstructure([IMAGE]), list[Image]) == [IMAGE]


def test_a_whole_listing_becomes_the_list_of_its_images() -> None:
    hooked = converter.copy()
    hooked.register_unstructure_hook(ImageStatus, lambda status: str(status).upper())
    whole = whole_listing([IMAGE, IMAGE])
    assert converter.unstructure(whole) == [converter.unstructure(IMAGE)] * 2
    assert converter.loads(converter.dumps(whole), list[Image]) == [IMAGE, IMAGE]
    assert converter.unstructure({"images": whole}) == {"images": converter.unstructure(list(whole))}
    assert [image["status"] for image in hooked.unstructure(whole)] == ["AVAILABLE"] * 2


def test_an_outcome_becomes_json_with_its_error_as_text() -> None:
    refused = errors.QuotaWaitError(wait=5.0, max_wait=1.0)
    outcomes: list[Outcome[int | str, Image]] = [
        Outcome(7, IMAGE),
        Outcome("debian-12-x64", error=refused),
        Outcome(8, error=KeyError("x")),
    ]
    assert json.loads(converter.dumps(outcomes)) == [
        {"key": 7, "value": converter.unstructure(IMAGE), "error": None},
        {"key": "debian-12-x64", "value": None, "error": f"QuotaWaitError: {refused}"},
        {"key": 8, "value": None, "error": "KeyError: 'x'"},
    ]


@pytest.mark.parametrize("answer", [NO_CONTENT, content(b""), content(b"\r\n")])
async def test_an_empty_body_is_called_empty(server: Server, api: ImagesAPI, answer: Answer) -> None:
    server.script(*[answer] * 8)
    with pytest.raises(errors.DecodeError, match=r"was answered with success, but the body is empty$"):
        await api.get(7)
    with pytest.raises(errors.DecodeError, match="the body is empty; it may have been carried out"):
        await api.update(7, name="golden")
    assert len(server.received) == 8


@pytest.mark.parametrize("body", [b"x", b"\x1f\x8b", b""])
async def test_a_body_that_is_too_short_to_be_unpacked_is_not_called_empty(
    server: Server, api: ImagesAPI, body: bytes
) -> None:
    server.answer_with(lambda _: content(body, headers={"content-encoding": "gzip"}))
    with pytest.raises(errors.DecodeError, match="is empty, or its Content-Encoding can't be decoded"):
        await api.get(7)


FIRST_READERS = """
from __future__ import annotations

import threading
import time

import attrs

from do_images_async import converter


def slowly() -> None:
    # msgspec asks for this in the middle of a description: the other threads come meanwhile. There is no
    # event to wait for, since they must do nothing until it is complete.
    time.sleep(0.1)


@attrs.frozen
class Inner:
    number: slowly() or int


@attrs.frozen
class Outer:
    inner: Inner


def read(count: int) -> None:
    document = {"inner": {"number": 7}}
    if count == 1:
        found.append(converter.structure(document, Outer))
    else:
        found.extend(converter.structure([document] * count, list[Outer]))


found: list[Outer] = []
threads = [threading.Thread(target=read, args=[count]) for count in (1, 2, 1, 2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*found)
"""


def test_several_threads_may_be_the_first_that_read_a_class() -> None:
    """msgspec crashes where one reads a class while another makes the class's description."""
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FIRST_READERS], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split() == ["Outer(inner=Inner(number=7))"] * 6


def test_the_rate_limit_has_its_reset_as_a_date() -> None:
    limit = RateLimit(limit=5000, remaining=0, reset=1_700_000_000)
    assert limit.reset_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_a_printed_rate_limit_is_a_sentence() -> None:
    limit = RateLimit(limit=5000, remaining=4998, reset=1_700_000_000)
    assert str(limit) == "4,998 of 5,000 requests left, reset at 2023-11-14 22:13:20 UTC"
    assert repr(limit) == "RateLimit(limit=5000, remaining=4998, reset=1700000000)"
    assert str(attrs.evolve(limit, reset=2**62)).endswith("reset at 9999-12-31 23:59:59 UTC")


# --- a converter of the user's ---


def owned(*, hook: str) -> Any:
    """Return a copy of the converter that reads images as `Mine`, by one of cattrs' ways."""
    mapper = converter.copy()

    def to_mine(value: Any, _: Any) -> Mine:
        return mapper.structure(value, Mine)

    def make_to_mine(_: Any) -> Any:
        return to_mine

    if hook == "class":
        mapper.register_structure_hook(Image, to_mine)
    elif hook == "predicate":
        mapper.register_structure_hook_func(lambda kind: kind is Image, to_mine)
    else:
        mapper.register_structure_hook_factory(lambda kind: kind is Image, make_to_mine)
    return mapper


WAYS = pytest.mark.parametrize("hook", ["class", "predicate", "factory"])
TOMORROW = image_document(7, owner="ops")


@WAYS
async def test_a_hook_is_used_in_every_call(server: Server, hook: str) -> None:
    pages = [
        reply({"images": [image_document(n, owner=f"team {n}")], "links": {}, "meta": {"total": 2}})
        for n in (1, 2)
    ]
    async with ImagesAPI(TOKEN, base_url=server.url, converter=owned(hook=hook)) as images:
        server.script(reply({"image": TOMORROW}))
        assert await images.get(7) == converter.structure(TOMORROW, Mine)
        server.script(*pages)
        found = [image async for image in images.list(per_page=1)]
        assert [(type(image), image.owner) for image in found if isinstance(image, Mine)] == [
            (Mine, "team 1"),
            (Mine, "team 2"),
        ]
        server.script(reply({"image": TOMORROW}))
        (outcome,) = [outcome async for outcome in images.with_options(timeout=5).get_many([7])]
        assert isinstance(outcome.value, Mine)


async def test_the_program_of_the_guide_reads_an_unknown_field(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", server.url)
    documents = [
        image_document(1, name="golden", retires_at="2027-03-01T00:00:00Z"),
        image_document(2, retires_at=None),
    ]
    server.script(reply({"images": documents, "links": {}, "meta": {"total": 2}}))
    await own_models.main()
    assert capsys.readouterr().out == "golden retires on 01 March 2027\n"
    server.script(reply({"images": [image_document(1, retires_at="soon")], "meta": {"total": 1}}))
    with pytest.raises(errors.DecodeError, match=r"at `\$\.images\[0\]\.retires_at`"):
        await own_models.main()


@WAYS
def test_a_hook_is_used_by_the_converter_itself(hook: str) -> None:
    mapper = owned(hook=hook)
    expected = converter.structure(TOMORROW, Mine)
    data = json.dumps([TOMORROW]).encode()
    assert mapper.structure(TOMORROW, Image) == expected
    assert mapper.loads(data, list[Image]) == [expected]
    assert mapper.structure([TOMORROW], tuple[Image, ...]) == (expected,)
    assert mapper.copy().loads(data, list[Image]) == [expected]
    assert type(converter.structure(TOMORROW, Image)) is Image


@pytest.mark.parametrize(
    ("kind", "result", "field"),
    [
        (datetime, datetime(2000, 1, 1, tzinfo=UTC), "created_at"),
        (ImageStatus, ImageStatus.RETIRED, "status"),
        (float, 1.5, "size_gigabytes"),
        (bool, True, "public"),
        (int, 5, "min_disk_size"),
    ],
)
async def test_a_hook_on_a_part_of_an_image_is_used(
    server: Server, kind: Any, result: object, field: str
) -> None:
    mapper = converter.copy()
    mapper.register_structure_hook(kind, lambda value, _: result)
    async with ImagesAPI(TOKEN, base_url=server.url, converter=mapper) as images:
        server.script(reply({"images": [image_document(5), image_document(5)], "meta": {"total": 2}}))
        page = await images.list_page()
    assert [getattr(image, field) for image in page.images] == [result, result]
    assert [image.name for image in page.images] == ["image 5", "image 5"]


def test_a_hook_on_strings_does_not_change_enums() -> None:
    mapper = converter.copy()
    mapper.register_structure_hook(str, lambda value, _: value.upper())
    image = mapper.structure(image_document(distribution="Ubuntu"), Image)
    assert (image.name, image.distribution, image.regions) == ("IMAGE 7", "UBUNTU", ("NYC3",))
    assert image.status is ImageStatus.AVAILABLE


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_types_without_a_hook_stay_strict(name: str, value: object) -> None:
    mapper = converter.copy()
    mapper.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
    body = {"images": [image_document(1), image_document(2) | {name: value}]}
    with pytest.raises(errors.DecodeError, match=rf"at `\$\.images\[1\]\.{name}"):
        mapper.loads(json.dumps(body).encode(), ImageListBody)
    with pytest.raises(errors.DecodeError, match=rf"at `\$\.images\[1\]\.{name}"):
        mapper.structure(body, ImageListBody)


def test_an_exception_of_a_hook_is_a_decode_error_with_its_place_and_cause() -> None:
    mapper = converter.copy()
    mapper.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(f"no {value}"))
    with pytest.raises(
        errors.DecodeError, match=r"ValueError: .* at `\$\.images\[0\]\.created_at`"
    ) as caught:
        mapper.structure({"images": [image_document()]}, ImageListBody)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_converter_that_forbids_unknown_fields_refuses_them() -> None:
    strict = converter.copy(forbid_extra_keys=True)
    assert strict.loads(json.dumps(image_document()).encode(), Image).id == 7
    with pytest.raises(errors.DecodeError, match="owner"):
        strict.loads(json.dumps(TOMORROW).encode(), Image)


@pytest.mark.parametrize("value", [cattrs.Converter(), object, "converter", 1])
def test_a_converter_that_is_no_copy_of_ours_is_refused_when_the_client_is_made(value: Any) -> None:
    with pytest.raises(TypeError, match=r"converter must be a copy of do_images_async\.converter, not "):
        ImagesAPI(TOKEN, converter=value)


async def test_an_action_is_read_with_and_without_its_envelope(server: Server, api: ImagesAPI) -> None:
    action = {"id": 1, "resource_id": 7, "status": "completed"}
    bodies: list[object] = [{"action": action}, action]
    for body in bodies:
        server.script(reply(body))
        assert (await api.actions.get(7, 1)).status == "completed"
    for wrong_body, place in (({"action": {"id": "1"}}, "action.id"), ({"id": "1"}, "id")):
        server.script(reply(wrong_body))
        with pytest.raises(errors.DecodeError, match=rf"at `\$\.{place}`"):
            await api.actions.get(7, 1)


def test_a_class_that_contains_itself_is_read() -> None:
    tree: dict[str, object] = {"id": 1, "children": [{"id": 2.0, "children": []}]}
    assert converter.structure(tree, Tree) == Tree(id=1, children=(Tree(id=2),))
    mapper = converter.copy()
    mapper.register_structure_hook(int, lambda value, _: -value)
    assert mapper.structure(tree, Tree) == Tree(id=-1, children=(Tree(id=-2),))
    with pytest.raises(errors.DecodeError, match=r"\$\.children\[0\]\.id"):
        converter.structure({"id": 1, "children": [{"id": "2"}]}, Tree)


@attrs.frozen
class Tree:
    id: int
    children: tuple[Tree, ...] = ()
