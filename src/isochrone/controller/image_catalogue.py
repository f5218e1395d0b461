"""The test images of a controller: which volumes are of which, and what is refused because of that."""

from __future__ import annotations

from isochrone.controller.capture_reports import Now
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.session.image_document import ImageDocument, images_in
from isochrone.store.pool import Pool


class ImageCatalogue:
    """What the pool's documents say of images. They change through `put` and `forget` only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._by_volume: dict[str, ImageDocument] = {}
        for document in images_in(pool.documents):
            self.put(document)

    def put(self, document: ImageDocument) -> None:
        """An image was made."""
        for member in document.members:
            self._by_volume[member.volume] = document

    def forget(self, document: ImageDocument) -> None:
        """An image was discarded."""
        for member in document.members:
            self._by_volume.pop(member.volume, None)

    def image_of(self, volume: str) -> ImageDocument | None:
        """Return the image that a volume belongs to, None for any other volume."""
        return self._by_volume.get(volume)

    def of_session(self, session: str) -> list[ImageDocument]:
        """Return the images of a session, by name; also of one that has gone."""
        return [document for document in images_in(self._pool.documents) if document.session == session]

    def get(self, session: str, image: str) -> ImageDocument:
        """Return an image. Raises NotFoundError."""
        for document in self.of_session(session):
            if document.image == image:
                return document
        raise NotFoundError(
            f"session {session!r} has no image {image!r} here; see `isochrone session image {session} --list`",
            name=image,
        )

    def description(self, volume: str, now: Now) -> str:
        """Return what the volume is, for whoever opens it; "" when it is of no image."""
        document = self.image_of(volume)
        if document is None:
            return ""
        return (
            f"test image {document.image} of session {document.session} at {now.wall_text_of(document.at_ns)}, "
            "not the recovered volume"
        )

    def refuse_deletion_of_volume(self, volume: str) -> None:
        """Raise ConflictError when a volume is of an image: that is discarded as a whole."""
        document = self.image_of(volume)
        if document is not None:
            raise ConflictError(
                f"volume {volume!r} is of test image {document.image!r} of session {document.session!r}: discard that, with "
                f"`isochrone session image {document.session} --as {document.image} --discard`",
                name=volume,
            )

    def refuse_deletion_of_session(self, session: str) -> None:
        """Raise ConflictError while a session has images: they would be left without the command that discards them."""
        images = self.of_session(session)
        if images:
            names = ", ".join(document.image for document in images)
            raise ConflictError(
                f"session {session!r} has test images: {names}; discard them first, with `isochrone session image {session} "
                "--discard`",
                session=session,
            )
