"""The command ``serve``: saved reward models behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from arm_lens.cli.flags import Asking, Loading, with_flags
from arm_lens.cli.output import say

_EXTRA = "serving needs the extra serve: pip install 'arm-lens[serve]'"


@with_flags
def serve(
    reward_models: Annotated[
        list[str],
        typer.Argument(help="Folders that fit wrote or owner/name on the hub, of one language model; or NAME=FOLDER."),
    ],
    loading: Loading,
    asking: Asking,
    model: Annotated[
        str, typer.Option(help="Hub name or local folder; by default the one that the first was fitted on.")
    ] = "",
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 for any free one.")] = 8000,
    token_env: Annotated[str, typer.Option(help="The environment variable with the bearer token.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without a token.")] = False,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions that are answered together at most.")] = 128,
    max_wait_ms: Annotated[
        float, typer.Option(min=0.0, help="How long an idle model waits for further questions.")
    ] = 2.0,
    queue: Annotated[int, typer.Option(min=1, help="Questions that may wait; then requests get 429.")] = 4096,
    max_items: Annotated[int, typer.Option(min=1, help="Items in a request.")] = 64,
    max_chars: Annotated[int, typer.Option(min=1, help="Characters of a prompt or response.")] = 20_000,
    max_images: Annotated[int, typer.Option(min=1, help="Images in a request.")] = 8,
    max_body: Annotated[int, typer.Option(min=1024, help="Bytes of a request's body.")] = 2**21,
) -> None:
    """Answer requests for rewards over HTTP, in batches; a page to try it is at the address that is printed.

    Ctrl-C or SIGTERM ends it: nothing more is accepted, and everything that was accepted is answered.
    """
    from arm_lens.service.options import ServiceOptions, check_host, token_of

    token = token_of(token_env)
    check_host(host, token, insecure)
    options = ServiceOptions(
        max_batch=max_batch, max_wait_ms=max_wait_ms, queue=queue, max_items=max_items, max_chars=max_chars,
        max_images=max_images, max_body=max_body,
    )  # fmt: skip
    try:
        from arm_lens.service.app import Service
        from arm_lens.service.run import run
    except ModuleNotFoundError as error:
        raise ImportError(f"{_EXTRA} ({error})") from error
    from arm_lens.service.served import load_served, named_folders

    first = next(iter(named_folders(reward_models).values()))
    loaded = loading.model_of(first, model)
    served = load_served(reward_models, loaded, device=loading.device or None, options=vars(asking))
    service = Service(served, options, token=token, local=not insecure)

    def started(address: str) -> None:
        names = ", ".join(one.name for one in served)
        say("", f"Serving {names} at {address}")

    run(service, host, port, started=started)
    say("", f"Stopped; {service.batcher.answered} of {service.batcher.accepted} accepted requests were answered.")
