"""The images of requests: known while they are judged, and forgotten then, so that memory does not grow with requests."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from arm_lens.engine.images import ImageReader
from arm_lens.preferences import Image, PreferenceFieldError
from arm_lens.preferences.images import as_image
from arm_lens.preferences.marks import KNOWN


class RequestImages:
    """Reads the images of requests, which are sent as ``data:`` URIs, and forgets them.

    Args:
        reader: of the language model; None if it reads text only.
        most: images in a request.
    """

    def __init__(self, reader: ImageReader | None, most: int) -> None:
        self._reader, self._most = reader, most
        self._lock, self._users = threading.Lock(), Counter[str]()

    @contextmanager
    def of_request(self) -> Iterator[ReadsImages]:
        """Within, the images that are read are known; afterwards those that nobody else has are not."""
        images = ReadsImages(self)
        try:
            yield images
        finally:
            self._forget(images.digests)

    def read(self, value: object, field: str, digests: list[str]) -> Image:
        """The image that a request has, whose digest is noted."""
        if self._reader is None:
            raise PreferenceFieldError(field, "is not read here: the language model reads text only")
        if len(digests) >= self._most:
            raise PreferenceFieldError(field, f"is one more than the {self._most} images that a request may have")
        with self._lock:
            before = len(KNOWN)
            image = as_image(value, field=field, name="the image", allow_paths=False)
            if len(KNOWN) > before or image.digest in self._users:  # those of demonstrations stay
                self._users[image.digest] += 1
                digests.append(image.digest)
        return image

    def _forget(self, digests: list[str]) -> None:
        with self._lock:
            for digest in digests:
                self._users[digest] -= 1
                if not self._users[digest]:
                    del self._users[digest]
                    KNOWN.pop(digest, None)
                    if self._reader is not None:
                        self._reader.forget(digest)


class ReadsImages:
    """How the images of one request are read."""

    def __init__(self, of: RequestImages) -> None:
        self._of, self.digests = of, list[str]()

    def __call__(self, value: object, *, field: str) -> Image:
        """The image that a message has."""
        return self._of.read(value, field, self.digests)
