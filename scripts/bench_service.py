"""The service under many clients: is any answer lost or swapped, and how much faster is it than one request at a time?

    python scripts/bench_service.py --clients 200 --seconds 60

``arm-lens serve`` runs in a process of its own, with four reward models on the bundled judge model, or on another. Every
answer is compared with the reward model's own score of the same text, computed here beforehand. One client alone is measured
before and after the many, in the same run, because the machine's speed changes. At the end the service gets SIGTERM while all
clients send; the answers that clients have then must be as many as the service says it gave.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from arm_lens import ActivationRewardModel, HeadSet, load_model
from arm_lens.engine.language_model import language_model
from arm_lens.judge_model import CRITERIA, labelled_responses
from arm_lens.judges.base import ScoreKind, of_kind
from arm_lens.judges.options import ReadingOptions

HEADS = ([(0, 1), (2, 3)], [(1, 1), (3, 0), (4, 5)], [(2, 2)], [(0, 7), (5, 0), (5, 1), (3, 3)])
KINDS: tuple[ScoreKind, ...] = ("reward", "two_way", "gap")
TOLERANCE = 1e-4
"""In probabilities and logits: far below what distinguishes two texts."""


class Lost(Exception):
    """The connection ended before an answer."""


class Connection:
    """A connection that stays open, and sends one request after the other."""

    def __init__(self, host: str, port: int, token: str = "") -> None:
        self.host, self.port, self._token = host, port, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the answer.

        Raises:
            Lost: if there is none.
        """
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        head += (
            f"Authorization: Bearer {self._token}\r\n" * bool(self._token) + f"Content-Length: {len(content)}\r\n\r\n"
        )
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self.host, self.port)
            reader, writer = self._streams
            writer.write(head.encode() + content)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            answer = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Lost(str(error)) from error
        if headers.get("connection") == "close":
            self.close()
        return int(first.split()[1]), headers, json.loads(answer)

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Served:
    """``arm-lens serve`` in a process of its own, until the block ends."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = "import sys; from arm_lens.cli import main; sys.argv[0] = 'arm-lens'; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", *arguments, "--port", "0"],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.host, self.port = "", 0

    def __enter__(self) -> Served:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"at http://([\d.]+):(\d+)/", line):
                self.host, self.port = found[1], int(found[2])
                return self
        raise RuntimeError(f"the service ended with {self.process.wait()}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stopped(self, timeout: float = 60.0) -> tuple[int, int, int]:
        """The exit status after SIGTERM was sent, and how many requests were answered and accepted."""
        output, _ = self.process.communicate(timeout=timeout)
        [found] = re.findall(r"Stopped; (\d+) of (\d+) accepted requests", output)
        return self.process.returncode, int(found[0]), int(found[1])


@dataclass
class Tally:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    """The latency of each answer."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not those of the reward models."""
    lost: int = 0
    """Requests without an answer."""
    refused: int = 0
    """Answers other than 200."""
    elapsed: float = 0.0

    @property
    def throughput(self) -> float:
        """Answers in a second."""
        return len(self.seconds) / self.elapsed


@dataclass(frozen=True)
class Texts:
    """Texts with the scores that each reward model gives them alone: ``expected[criterion][text]``, by kind."""

    texts: list[tuple[str, str]]
    expected: dict[str, list[dict[str, float]]]

    @classmethod
    def of(cls, reward_models: Mapping[str, ActivationRewardModel], count: int) -> Texts:
        """Texts of the bundled model's world."""
        items = labelled_responses(next(iter(CRITERIA)), count, split="test", seed=5)
        prompts, responses = [one.prompt for one in items], [one.response for one in items]
        expected = {}
        for name, reward_model in reward_models.items():
            found = reward_model.verdicts(prompts, responses)
            columns = [of_kind(found, kind).tolist() for kind in KINDS]
            expected[name] = [dict(zip(KINDS, row, strict=True)) for row in zip(*columns, strict=True)]
        return cls(list(zip(prompts, responses, strict=True)), expected)

    def request(self, order: random.Random, most_items: int = 2) -> tuple[dict[str, Any], list[int], list[str]]:
        """A random request: one item or a few, by all criteria or one; and which texts and criteria are in it."""
        numbers = [order.randrange(len(self.texts)) for _ in range(order.randint(1, most_items))]
        criteria = list(self.expected) if order.random() < 0.5 else [order.choice(list(self.expected))]
        items = [{"prompt": self.texts[one][0], "response": self.texts[one][1]} for one in numbers]
        body: dict[str, Any] = {"items": items} | ({} if len(criteria) > 1 else {"criteria": criteria})
        return body, numbers, criteria

    def fault(
        self, results: Sequence[Mapping[str, Mapping[str, float]]], numbers: list[int], criteria: list[str]
    ) -> str:
        """What is wrong with an answer; empty if nothing."""
        if [list(row) for row in results] != [criteria] * len(numbers):
            return f"criteria {[list(row) for row in results]} instead of {criteria}"
        for row, number in zip(results, numbers, strict=True):
            for name in criteria:
                for kind, value in self.expected[name][number].items():
                    if not abs(row[name][kind] - value) <= TOLERANCE:
                        return f"text {number}, {name}: {kind} is {row[name][kind]} instead of {value}"
        return ""


async def load(
    address: tuple[str, int], texts: Texts, clients: int, seconds: float, *, seed: int = 0, token: str = ""
) -> Tally:
    """Clients that each send one request after the other for some time, and compare every answer."""
    tally, start = Tally(), time.perf_counter()

    async def client(number: int) -> None:
        order, connection = random.Random(f"{seed} {number}"), Connection(*address, token)
        while time.perf_counter() - start < seconds:
            body, numbers, criteria = texts.request(order)
            sent = time.perf_counter()
            try:
                status, _, answer = await connection.post("/v1/score", body)
            except Lost:
                tally.lost += 1
                break
            if status != 200:
                tally.refused += 1
                continue
            tally.seconds.append(time.perf_counter() - sent)
            if fault := texts.fault(answer["results"], numbers, criteria):
                tally.wrong.append(fault)
        connection.close()

    await asyncio.gather(*map(client, range(clients)))
    tally.elapsed = time.perf_counter() - start
    return tally


def made_reward_models(folder: Path, name: str = "") -> dict[str, ActivationRewardModel]:
    """Reward models of several criteria on the bundled model or another, saved in a folder each."""
    model = language_model(load_model(name, dtype=torch.float32) if name else load_model())
    found = {}
    for criterion, heads in zip(CRITERIA, HEADS, strict=False):
        examples = labelled_responses(criterion, 12, split="train", seed=0)
        found[criterion] = ActivationRewardModel.fit(
            model, examples, selector=HeadSet.of(model.n_layers, model.n_heads, heads),
            reading=ReadingOptions(readings=4, demonstrations=4),
        )  # fmt: skip
        found[criterion].save(folder / criterion)
    return found


def reported(name: str, tally: Tally) -> None:
    """Print a tally."""
    quantiles = statistics.quantiles(tally.seconds, n=100) if len(tally.seconds) > 1 else [float("nan")] * 99
    middle, slow = 1000 * quantiles[49], 1000 * quantiles[98]
    print(
        f"{name:<22}{tally.throughput:8.1f} answers/s   median {middle:7.1f} ms   99 % {slow:8.1f} ms"
        f"   answers {len(tally.seconds)}, wrong {len(tally.wrong)}, lost {tally.lost}, refused {tally.refused}",
        flush=True,
    )


async def stopped_under_load(
    service: Served, texts: Texts, clients: int, *, token: str = ""
) -> tuple[Tally, tuple[int, int, int]]:
    """SIGTERM after two seconds of load: what clients saw, and what the service says."""
    loading = asyncio.create_task(load((service.host, service.port), texts, clients, 30.0, seed=1, token=token))
    await asyncio.sleep(2.0)
    service.process.send_signal(signal.SIGTERM)
    tally = await loading
    return tally, await asyncio.to_thread(service.stopped)


def main() -> None:
    """Run the benchmark; exit with 1 if an answer is lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="", help="hub name, folder or GGUF file, in float32; by default the bundled model"
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--max-wait-ms", default="2", help="of the service, also while one client is alone")
    parser.add_argument("--max-batch", default="128")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reward_models = made_reward_models(Path(folder), options.model)
        texts = Texts.of(reward_models, options.texts)
        flags = ["--max-wait-ms", options.max_wait_ms, "--max-batch", options.max_batch]
        with Served(*(f"{folder}/{name}" for name in reward_models), *flags) as service:
            address = (service.host, service.port)
            asyncio.run(load(address, texts, 4, 3.0))  # to warm up
            before = asyncio.run(load(address, texts, 1, options.seconds / 4))
            many = asyncio.run(load(address, texts, options.clients, options.seconds))
            after = asyncio.run(load(address, texts, 1, options.seconds / 4))
            reported("one client, before", before)
            reported(f"{options.clients} clients", many)
            reported("one client, after", after)
            alone = (len(before.seconds) + len(after.seconds)) / (before.elapsed + after.elapsed)
            print(
                f"throughput of {options.clients} clients: {many.throughput / alone:.2f} times that of one", flush=True
            )
            last, (status, answered, accepted) = asyncio.run(stopped_under_load(service, texts, options.clients))
    print(f"SIGTERM under load: exit status {status}; {accepted} accepted, {answered} answered in all")
    total = sum(len(one.seconds) for one in (before, many, after, last))
    faults = [*before.wrong, *many.wrong, *after.wrong, *last.wrong]
    print(f"wrong: {faults[:3]}" if faults else "every answer equals direct scoring")
    if faults or many.lost or many.refused or before.lost or after.lost or status or answered != accepted:
        sys.exit(1)
    print(f"answers that clients have: {total} and those of the warm-up")


if __name__ == "__main__":
    main()
