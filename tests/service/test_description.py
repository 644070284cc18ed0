"""The OpenAPI description against the service: whatever it allows or forbids is answered as it says, and never with a 5xx."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
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


schema = schemathesis.pytest.from_fixture("description")


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_whatever_is_sent_is_answered_as_described(case):
    case.call_and_validate(checks=CHECKS)
