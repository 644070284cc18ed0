"""What a stranger does first, in an environment that has nothing but the wheel: `make test-wheel` runs this there.

Their own CSV with their own column names, their own model from a folder, ten lines, and a figure as PDF.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from docs.setups import _small

ROOT = Path(__file__).resolve().parents[1]
TWEETS = [
    (f"what a {word} day {day} is", mood) for day in range(10) for word, mood in (("fine", "joy"), ("bad", "anger"))
]


def ten_lines(folder: str) -> None:
    """As in the README, with names of one's own."""
    from arm_lens import ActivationRewardModel, HeadSet, load_model, read_preferences
    from arm_lens.plots import save_figure

    model = load_model(folder)
    tweets = read_preferences(
        "tweets.csv", columns={"response": "tweet", "label": "mood"}, labels={"joy": True, "anger": False}
    )
    heads = HeadSet.of(3, 4, [(0, 1), (2, 3)])  # a search finds none in a random model
    reward = ActivationRewardModel.fit(
        model, tweets, criterion="joy", question="The tweet expresses joy.", selector=heads
    )
    reward.save("joy")
    again = ActivationRewardModel.load("joy", model)
    texts = [tweet.response for tweet in tweets]
    assert (again.score([""] * len(texts), texts) == reward.score([""] * len(texts), texts)).all()
    save_figure(reward.plot(), "heads.pdf")


def main() -> None:
    """Run it in an empty folder, and look at what is there afterwards."""
    import arm_lens

    where = Path(arm_lens.__file__)
    assert where.is_relative_to(sys.prefix) and not where.is_relative_to(ROOT / "src"), f"not the wheel: {where}"
    assert not [name for name in ("pytest", "trl", "ray", "fastapi", "mypy") if find_spec(name)], (
        "not an empty environment"
    )
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        model = _small.chat_model(Path(cache))
        _small.write_csv(Path("tweets.csv"), "tweet,mood", *TWEETS)
        ten_lines(model)
        assert Path("heads.pdf").read_bytes().startswith(b"%PDF-"), "the figure is no PDF"
        assert sorted(path.name for path in Path("joy").iterdir() if not path.name.startswith(".")), "nothing was saved"
    print(f"The wheel of arm_lens {arm_lens.__version__} works in an environment with nothing else.")


if __name__ == "__main__":
    main()
