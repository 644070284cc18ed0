"""Judges on the Hugging Face hub: which files travel, and what goes wrong on the way, in a user's words.

Of a repository only ``judge.json``, the tensors that it names and the model card are downloaded, into the cache of
huggingface_hub, after the hub's file sizes were checked; then the folder is read as strictly as any other. All files are
those of one commit. No code of a repository is run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from arm_lens.judges.artefact import (
    MOST_RECORD,
    MOST_TENSORS,
    RECORD,
    ArtefactError,
    WrongModelError,
    header_of,
    tensors_file,
)
from arm_lens.judges.model_card import CARD, LARGEST_CARD, PICTURE, is_generated

SCHEME = "hf://"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
TENSORS = re.compile(r"tensors-[0-9a-f]{16}\.safetensors")
NO_ANSWER: tuple[type[Exception], ...] = (OSError, cast(type[Exception], HfHubHTTPError.__mro__[1]))
"""What a hub that cannot be reached ends in: an error of the system, or of the HTTP client, of which huggingface_hub has had
several."""


class Source(NamedTuple):
    """Where a judge is read from."""

    folder: Path
    repository: str | None
    """``owner/name`` on the hub; None for a folder of the user."""

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Put the repository's name in front of errors about the folder that it was downloaded to."""
        try:
            yield
        except (ArtefactError, WrongModelError) as error:
            if self.repository is None:
                raise
            again = (
                f"; to download it again, delete {self.folder.parents[1]}" if isinstance(error, ArtefactError) else ""
            )
            raise type(error)(f"{self.repository} on the hub: {error}{again}") from error


def repository_of(name: str) -> str | None:
    """The repository that a name such as ``owner/name`` or ``hf://owner/name`` means; None if it is not such a name."""
    found = name.removeprefix(SCHEME)
    return found if REPOSITORY.fullmatch(found) else None


def source_of(path: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> Source:
    """The folder of a judge, downloaded if it is on the hub. A folder that exists is taken before a hub name.

    Raises:
        ValueError: if a revision is given for a folder, or ``hf://`` is followed by something else than a hub name.
        FileNotFoundError: if there is no such repository, revision or file in it.
        PermissionError: if the hub refuses the token.
        ConnectionError: if the hub cannot be reached, and the judge was not downloaded before.
        ArtefactError: if a file is too large, or the record is damaged.
    """
    name = path if isinstance(path, str) else ""
    repository = None if not name.startswith(SCHEME) and Path(path).exists() else repository_of(name)
    if repository is not None:
        return _downloaded(repository, revision, token)
    if name.startswith(SCHEME):
        raise ValueError(f"{name!r} does not name a repository; pass 'hf://owner/name'")
    if revision is not None:
        raise ValueError(f"a revision is one of a repository on the hub, and {path} is not; leave revision out")
    return Source(Path(path), None)


def digest_of_judge(path: str | Path) -> str:
    """The digest of a judge in a folder or on the hub; errors as `source_of`."""
    source = source_of(path)
    with source.naming():
        return header_of(source.folder).digest


def push(folder: Path, repository: str, *, private: bool | None, token: str | bool | None, revision: str | None) -> str:
    """Make one commit of the files of a judge's folder; its hash. Tensors of an older judge there are deleted.

    Raises:
        PermissionError: if the hub refuses the token.
        ConnectionError: if the hub cannot be reached.
    """
    api = HfApi(token=token)
    with _in_words(repository, revision):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        there = _sizes(api, repository, revision)
        files = {one.name: one for one in sorted(folder.iterdir()) if not one.name.startswith(".")}
        stale = {name for name in there if TENSORS.fullmatch(name) or name == PICTURE} - files.keys()
        if CARD in there and _edited(repository, there[CARD], revision, token):
            del files[CARD]
            stale.discard(PICTURE)
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, file) for name, file in files.items()),
            *(CommitOperationDelete(name) for name in sorted(stale)),
        ]
        done = api.create_commit(repository, changes, commit_message="Judge of arm_lens", revision=revision)
    return str(done.oid)


def _edited(repository: str, size: int | None, revision: str | None, token: str | bool | None) -> bool:
    """Whether the card in a repository is not as arm_lens wrote it."""
    if size is not None and size > LARGEST_CARD:
        return True
    path = hf_hub_download(repository, CARD, revision=revision, token=token)
    return not is_generated(Path(path).read_text(encoding="utf-8", errors="replace"))


def _downloaded(repository: str, revision: str | None, token: str | bool | None) -> Source:
    with _in_words(repository, revision):
        sizes: dict[str, int | None] = {}
        try:
            sizes = _sizes(HfApi(token=token), repository, revision)
        except HfHubHTTPError:
            raise
        except NO_ANSWER:  # offline; what was downloaded before is in the cache
            pass
        for name, size in sizes.items():
            most = MOST_RECORD if name == RECORD else MOST_TENSORS if TENSORS.fullmatch(name) else None
            if most is not None and size is not None and size > most:
                raise ArtefactError(f"{repository} on the hub: {name} has {size:,} bytes, more than a judge's {most:,}")
        record = Path(hf_hub_download(repository, RECORD, revision=revision, token=token))
        source = Source(record.parent, repository)
        commit = record.parent.name  # so that all files are of one commit
        with source.naming():
            tensors = tensors_file(header_of(source.folder).tensors)
        try:
            hf_hub_download(repository, tensors, revision=commit, token=token)
        except EntryNotFoundError as error:
            if not isinstance(error, LocalEntryNotFoundError):
                raise ArtefactError(f"{repository} on the hub has no {tensors}, which its {RECORD} names") from error
            raise
        if 0 < (sizes.get(CARD) or 0) <= LARGEST_CARD:
            hf_hub_download(repository, CARD, revision=commit, token=token)
    return source


def _sizes(api: HfApi, repository: str, revision: str | None) -> dict[str, int | None]:
    """The files in a revision with their sizes, where the hub knows them."""
    found = api.model_info(repository, revision=revision, files_metadata=True)
    return {one.rfilename: one.size for one in found.siblings or ()}


@contextlib.contextmanager
def _in_words(repository: str, revision: str | None) -> Iterator[None]:
    """Turn the errors of huggingface_hub into those that a user of arm_lens expects."""
    try:
        yield
    except GatedRepoError as error:
        raise PermissionError(
            f"{repository} is gated: accept its conditions on its page, and log in with 'hf auth login' or pass token=..."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{repository} is not a folder here, and the hub has no such repository, or none that this token opens: check "
            "the name, log in with 'hf auth login' or pass token=..."
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repository} on the hub has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{repository} is not a folder here, the hub cannot be reached, and the judge was not downloaded before"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{repository} on the hub has no fitted judge ({RECORD} is missing)") from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise PermissionError(
                f"the hub refuses access to {repository}: log in, or pass another token=..."
            ) from error
        raise ConnectionError(f"the hub answered for {repository}: {' '.join(str(error).split())[:300]}") from error
    except (ArtefactError, FileNotFoundError):
        raise
    except NO_ANSWER as error:
        raise ConnectionError(
            f"the hub cannot be reached for {repository}: {' '.join(str(error).split())[:300]}"
        ) from error
