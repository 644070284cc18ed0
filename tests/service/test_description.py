"""The OpenAPI description against the service: whatever it allows or forbids is answered as it says, and never with a 5xx."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from arm_lens.service.app import Service
from arm_lens.service.options import ServiceOptions

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def description(served_judges):
    service = Service(served_judges[:2], ServiceOptions(max_chars=300, max_items=4), local=False)
    yield schemathesis.openapi.from_asgi("/openapi.json", service.app)
    service.close()


SETTINGS = hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.mark.slow
def test_whatever_is_sent_is_answered_as_described(description):
    answered = []
    for found in description.get_all_operations():
        operation = found.ok()
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if operation.method == "post" else ()
        for mode in modes or (GenerationMode.POSITIVE,):

            @SETTINGS
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def check(case):
                answered.append(case.call_and_validate(checks=CHECKS).status_code)

            check()
    assert {200, 422} <= set(answered)
