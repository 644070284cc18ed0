"""A configuration means what it looks like, or is refused with file, line and key."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest
import yaml

from arm_lens.benchmark import DEMO, DEMONSTRATION, BenchmarkConfigError, read_config
from arm_lens.benchmark.strict_yaml import MOST_BYTES, YamlError, read_yaml

GOOD = """
judges: [length]
studies:
  - kind: world
"""


@pytest.fixture
def refused(tmp_path):
    """refused(text, line, key, words): the text is refused, naming all of these."""

    def check(text, line, key, words):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BenchmarkConfigError) as error:
            read_config(path)
        message = str(error.value)
        assert message.startswith(str(path)) and f"line {line}, {key}: " in message, message
        assert re.search(words, message), message

    return check


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("title: 1e-3", r"1e-3 is text to YAML; write 1\.0e-3 for the number, or '1e-3' in quotes"),
        ("memory_gib: 5E2", r"5E2 is text to YAML; write 5\.0e\+2"),
        ("memory_gib: -.5e3", r"write -0\.5e\+3"),
        ("memory_gib: .inf", "not a finite number"),
        ("memory_gib: .nan", "not a finite number"),
        ("title: no", "no is false to YAML; write false, or 'no' in quotes"),
        ("title: On", "On is true to YAML; write true"),
        ("samples: 007", "007 is not the number that it looks like to YAML; write 7, or '007'"),
        ("samples: 1:30", "1:30 is not the number"),
        ("title: 2026-11-27", "is a date to YAML"),
        ("samples: true", "valid integer"),
        ("samples: '3'", "valid integer"),
        ("noise: [yes]", "yes is true to YAML"),
        ("keep_reward_models: 1", "valid boolean"),
        ("batchsize: 4", "no such field; did you mean 'batch_size'"),
        ("xyz: 4", "no such field; known are title, model"),
        ("lead: lenght", "did you mean 'length'"),
    ],
)
def test_a_value_that_is_not_what_it_looks_like_is_refused(refused, line, said):
    refused(f"{GOOD}\n{line}\n", 6, re.match(r"\w+", line)[0] + (".0" if "[" in line else ""), said)


def test_what_is_given_twice_is_refused_with_both_lines(refused):
    refused(GOOD + "samples: 2\nsamples: 3\n", 6, "samples", "given twice, first in line 5")
    refused(GOOD + "    samples: 2\n    samples: 2\n", 6, "studies.0.samples", "given twice, first in line 5")
    refused(
        "judges:\n  - length\n  - probe\n  - length\nstudies: [{kind: world}]\n", 4, "judges.2", "two judges of the run"
    )
    studies = "studies:\n  - kind: world\n  - kind: world\n"
    refused("judges: [length]\n" + studies, 3 + 1, "studies.1.name", "two studies")


def test_a_key_of_text_that_yaml_takes_for_a_truth_value_is_refused(refused):
    study = "  - {kind: preferences, name: x, path: x, labels: {no: false, good: true}}\n"
    refused(GOOD + study, 5, "studies.1.labels.no", "the key no is false to YAML")


def test_studies_and_options_are_named_with_their_line(refused):
    refused(GOOD + "    crteria: [polite]\n", 5, "studies.0.world.crteria", "did you mean 'criteria'")
    refused(GOOD + "    criteria:\n      - polite\n      - nice\n", 7, "studies.0.world.criteria.1", "criterion 'nice'")
    judge = "judges:\n  - length\n  - judge: arm_reinforce\n    demonstratoins: 3\nstudies: [{kind: world}]\n"
    refused(judge, 4, "judges.1.demonstratoins", "has no option 'demonstratoins'")
    refused(
        "judges:\n  - lenght\nstudies: [{kind: world}]\n", 2, "judges.0", "no judge 'lenght'.*did you mean 'length'"
    )


LAUGHS = "- &a [x, x]\n- &b [*a, *a, *a, *a]\n" + "".join(
    f"- &{chr(99 + n)} [{', '.join([f'*{chr(98 + n)}'] * 9)}]\n" for n in range(9)
)
"""Aliases of aliases, which stand for more lists than memory has room for."""


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a: &x [*x]", "a: [1\n", LAUGHS, "--- 1\n--- 2\n", "\x00", "? [a]\n: b"])
def test_what_is_no_configuration_at_all_is_refused_by_name(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BenchmarkConfigError, match=r"run\.yaml"):
        read_config(tmp_path / "run.yaml")


MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9))
"""Merges of merges, which stand for more keys than memory has room for."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MERGES, r"line 2, a1\.<<: keys of another mapping \(<<\) are not seen here"),
        ("a: {<<: {samples: 007}}", r"line 1, a\.<<"),
        ("a: !!int ''", "line 1, a: write the value without the tag !!int"),
        ("a: !!timestamp x", "without the tag !!timestamp"),
        ("a: !!bool x", "without the tag !!bool"),
        ("a: 1\nb: !!set {c}", "line 2, b: write the value without the tag !!set"),
        ("a: 'open\nb: 1", r"is not YAML: line 2: found unexpected end of stream"),
    ],
)
def test_what_does_not_stand_there_is_refused(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(YamlError, match=said):
        read_yaml(tmp_path / "x.yaml")


def test_an_error_quotes_no_line_and_a_file_without_an_end_is_not_read(tmp_path):
    (tmp_path / "x.yaml").write_text('base_url: "http://me:hunter2@host/v1\na: 1')
    with pytest.raises(YamlError) as error:
        read_yaml(tmp_path / "x.yaml")
    assert "hunter2" not in "".join(traceback.format_exception(error.value))
    (tmp_path / "large.yaml").write_bytes(b"#" * (MOST_BYTES + 1))
    for path in (tmp_path / "large.yaml", Path("/dev/zero")):
        with pytest.raises(YamlError, match=path.name):
            read_yaml(path)


def test_other_files_are_read_as_pyyaml_reads_them(tmp_path):
    for path in (DEMO, DEMONSTRATION):
        assert read_yaml(path).values == yaml.safe_load(path.read_text(encoding="utf-8"))
    text = "a: '1e-3'\nb: \"no\"\nc: {d: 1.0e-3, e: -4, f: true, g: null}\nlabels: {x: yes, y: no}\nh: 1e\ni: 0x1F\n"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    file = read_yaml(tmp_path / "x.yaml")
    assert file.values == yaml.safe_load(text) and file.line(("c", "tag", "e")) == 3 and file.line(()) == 1
    with pytest.raises(YamlError, match="folder"):
        read_yaml(tmp_path)
