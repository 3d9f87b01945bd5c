"""`list_whole`: all images as one value, or an error; never a part."""

from __future__ import annotations

import pytest

from do_images_async import Image, ImagePage, ImagesAPI, WholeListing, errors
from tests.support.servers import Answer, Received, Server, image_document, listing, refusal, reply


def page(*documents: object, total: int) -> Answer:
    return reply({"images": list(documents), "links": {"pages": {}}, "meta": {"total": total}})


async def test_a_whole_listing_holds_every_image_once(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(25, tags=["x"]))
    pages: list[ImagePage] = []
    whole = await api.list_whole(private=True, tag_name="x", per_page=10, progress=pages.append)
    assert [image.id for image in whole] == list(range(1, 26))
    assert len(whole) == 25
    assert next(iter(whole)) in whole
    assert Image(id=999) not in whole
    assert repr(whole) == "<WholeListing of 25 images>"
    assert [len(each) for each in pages] == [10, 10, 5]
    assert len(server.received) == 6, "a strict reading reads everything twice"
    assert {(each.query["private"], each.query["tag_name"]) for each in server.received} == {("true", "x")}


async def test_a_listing_that_stays_short_is_no_whole_one(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda request: page(image_document(1), total=3))
    with pytest.raises(errors.IncompleteListingError):
        await api.list_whole()


async def test_a_page_that_fails_leaves_no_listing(server: Server, api: ImagesAPI) -> None:
    catalogue = listing(30)

    def answer(request: Received) -> Answer:
        if request.query["page"] == "2":
            return refusal(500)
        found = catalogue(request)
        assert isinstance(found, Answer)
        return found

    server.answer_with(answer)
    with pytest.raises(errors.ServerError) as raised:
        await api.list_whole(per_page=10)
    assert raised.value.page == 2


async def test_an_id_that_comes_twice_is_one_image_if_both_are_the_same(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(lambda request: page(image_document(6), image_document(6), total=1))
    assert [image.id for image in await api.list_whole()] == [6]


async def test_an_id_that_comes_twice_does_not_make_up_for_one_that_is_missing(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(lambda request: page(image_document(6), image_document(6), total=2))
    with pytest.raises(errors.IncompleteListingError) as caught:
        await api.list_whole()
    assert (caught.value.seen, caught.value.total) == (1, 2)


async def test_an_id_that_comes_twice_and_differs_is_an_error(server: Server, api: ImagesAPI) -> None:
    other = image_document(6) | {"name": "another"}
    server.answer_with(lambda request: page(image_document(6), other, total=2))
    with pytest.raises(errors.IncompleteListingError, match="page 1 lists the id 6 twice, and not the same"):
        await api.list_whole()


def test_a_whole_listing_can_not_be_made_directly() -> None:
    with pytest.raises(TypeError, match=r"images\.list_whole\(\)"):
        WholeListing()


async def test_a_hook_that_can_not_be_called_is_refused(api: ImagesAPI) -> None:
    with pytest.raises(TypeError, match="progress"):
        await api.list_whole(progress=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
