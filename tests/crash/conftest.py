"""Brokers that tests of faults make, several to a test."""

import functools

import brokers
import pytest


@pytest.fixture
def made():
    """Makes brokers; they are gone after the test."""
    all_of_them = []

    def make(settings, *flags, kind=brokers.Thalweg):
        all_of_them.append(kind(settings, *flags))
        return all_of_them[-1]

    yield make
    for broker in all_of_them:
        broker.remove()


@pytest.fixture
def faulty(made):
    """Makes brokers on faulty devices."""
    return functools.partial(made, kind=brokers.Faulty)
