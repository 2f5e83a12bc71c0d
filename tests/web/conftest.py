"""Fixtures of the tests that go through HTTP."""

from tests.support.gateway import gateway as gateway, tenant as tenant
