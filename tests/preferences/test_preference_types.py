from __future__ import annotations

import copy
import pickle

import pytest

from arm_lens.preferences import LabelledResponse, PreferenceFieldError, PreferencePair, text_of, unpair

USER = {"role": "user", "content": "Name a prime."}
SEVEN = {"role": "assistant", "content": "7"}
NINE = {"role": "assistant", "content": "9"}


def test_a_list_of_messages_is_kept_as_a_tuple_of_copies():
    message = dict(USER)
    pair = PreferencePair([message], [SEVEN], [NINE])
    message["content"] = "changed afterwards"
    assert pair.prompt == (USER,)
    assert pair.chosen == (SEVEN,)


def test_equal_examples_have_equal_hashes_and_are_one_in_a_set():
    pairs = [PreferencePair([USER], "7", "9", criterion="true", id="a", metadata={"list": [1]}) for _ in range(2)]
    singles = [LabelledResponse("p", [SEVEN], True, id="a", metadata={"list": [1]}) for _ in range(2)]
    assert len(set(pairs)) == len(set(singles)) == 1


@pytest.mark.parametrize(
    "other",
    [
        PreferencePair("q", "7", "9", criterion="true", id="a"),
        PreferencePair("p", "8", "9", criterion="true", id="a"),
        PreferencePair("p", "7", "8", criterion="true", id="a"),
        PreferencePair("p", "7", "9", criterion="short", id="a"),
        PreferencePair("p", "7", "9", criterion="true", id="b"),
        PreferencePair("p", "7", "9", criterion="true", id="a", metadata={"source": "x"}),
    ],
)
def test_examples_that_differ_in_one_field_are_unequal(other):
    assert PreferencePair("p", "7", "9", criterion="true", id="a") != other


def test_an_example_cannot_be_changed():
    pair = PreferencePair("p", "7", "9")
    with pytest.raises(AttributeError):
        pair.prompt = "q"


def test_examples_do_not_share_their_metadata():
    first, second = PreferencePair("p", "7", "9"), PreferencePair("p", "7", "9")
    first.metadata["seen"] = True
    assert second.metadata == {}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda example: pickle.loads(pickle.dumps(example))])
def test_copies_and_pickles_are_equal(again):
    for example in (PreferencePair([USER], "7", "9", id="a", metadata={"n": 1}), LabelledResponse("p", "r", False)):
        assert again(example) == example


@pytest.mark.parametrize(
    ("fields", "field", "found"),
    [
        (("  ", "7", "9"), "prompt", "'  '"),
        (("p", " \n", "9"), "chosen", r"' \\n'"),
        (("p", "7", "\t"), "rejected", r"'\\t'"),
        (("p", "7", " 7\n"), "rejected", "same as chosen: ' 7"),
        (("p", "7", [SEVEN]), "rejected", "same as chosen"),
        (((), "7", "9"), "prompt", "no message"),
        (("p", [{"role": "assistant", "content": " "}], "9"), "chosen", "no message with any text"),
        (([{"content": "hi"}], "7", "9"), "prompt", "no 'role' in message 1"),
        (([USER, {"role": "user"}], "7", "9"), "prompt", "no 'content' in message 2"),
        (([{"role": " ", "content": "hi"}], "7", "9"), "prompt", "blank 'role' in message 1"),
        (([{"role": "user", "content": ["hi"]}], "7", "9"), "prompt", "'content' that is not text in message 1"),
        (([USER | {"name": "Ann"}], "7", "9"), "prompt", "'name' in message 1"),
        (("p", [USER, SEVEN], "9"), "chosen", "begins with a message from 'user'"),
        (("p", "7", [NINE, USER]), "rejected", "ends with a message from 'user'"),
    ],
)
def test_a_malformed_pair_is_refused_with_the_field_and_what_was_found(fields, field, found):
    with pytest.raises(ValueError, match=f"^{field} .*{found}") as caught:
        PreferencePair(*fields)
    assert caught.value.field == field


def test_a_malformed_labelled_response_is_refused_with_the_field():
    with pytest.raises(PreferenceFieldError, match=r"^response is blank"):
        LabelledResponse("p", " ", True)
    with pytest.raises(PreferenceFieldError, match=r"^prompt is blank"):
        LabelledResponse(" ", "r", True)


def test_an_empty_system_message_is_no_fault():
    prompt = [{"role": "system", "content": ""}, USER]
    assert PreferencePair(prompt, "7", "9").prompt == tuple(prompt)


def test_the_text_of_a_lone_message_is_its_content():
    assert text_of("plain") == "plain"
    assert text_of((USER,)) == "Name a prime."
    assert text_of([SEVEN]) == "7"


def test_the_text_of_a_conversation_names_who_speaks():
    text = text_of([{"role": "system", "content": "Be brief."}, USER, SEVEN])
    assert text == "System: Be brief.\n\nUser: Name a prime.\n\nAssistant: 7"


def test_a_pair_becomes_a_response_that_meets_the_criterion_and_one_that_does_not():
    pair = PreferencePair([USER], "7", "9", criterion="is prime", id="a", metadata={"n": 1})
    assert unpair([pair]) == [
        LabelledResponse([USER], "7", True, criterion="is prime", id="a/chosen", metadata={"n": 1}),
        LabelledResponse([USER], "9", False, criterion="is prime", id="a/rejected", metadata={"n": 1}),
    ]


def test_labelled_responses_pass_through_in_their_place():
    single = LabelledResponse("p", "r", False)
    pair = PreferencePair("q", "7", "9")
    assert unpair([single, pair])[0] is single
    assert [example.id for example in unpair([single, pair])] == ["", "", ""]
