"""The checker of histories finds each anomaly when it is planted, and nothing in a history without one."""

import pytest
from history import History, Value, anomalies

P0, P1 = ("t#1", 0), ("t#1", 1)


def value(sequence, producer="a", number=0, generation="t#1"):
    return Value(generation, producer, number, sequence)


def sound():
    """Two producers, two partitions, a group with a rebalance, and a plain reader."""
    history = History()
    records = {P0: [value(0), value(1), value(0, "b"), value(2), value(1, "b")], P1: [value(0, number=1)]}
    for partition, values in records.items():
        for offset, one in enumerate(values):
            history.send(one)
            history.acknowledge(partition, offset, one)
        history.finish(partition, list(enumerate(values)))
    first = history.begin("g", P0)
    for offset in (0, 1, 2):
        history.poll(first, offset, records[P0][offset])
    history.commit("g", P0, 2)
    history.commit("g", P0, 2, "fetch")
    # What was not committed comes again, to another member.
    second = history.begin("g", P0, 2)
    for offset in (2, 3, 4):
        history.poll(second, offset, records[P0][offset])
    other = history.begin("g", P1)
    history.poll(other, 0, records[P1][0])
    reader = history.begin(None, P0)
    history.poll(reader, 3, records[P0][3])
    # Sent, never acknowledged, not there: legal.
    history.send(value(3))
    return history


def lost_write(history):
    late = value(9)
    history.send(late)
    history.acknowledge(P0, 5, late)


def reused_offset(history):
    other = value(3)
    history.acknowledge(P0, 4, other)


def duplicate(history):
    history.final[P0].append((5, value(1, "b")))


def order(history):
    history.send(value(7, "b"))
    history.send(value(6, "b"))
    history.final[P0] += [(5, value(7, "b")), (6, value(6, "b"))]


def stranger(history):
    history.final[P1].append((1, value(99, number=1)))


def a_record_of_a_deleted_topic(history):
    old = value(1, number=1, generation="t#0")
    history.send(old)
    history.final[P1].append((1, old))


def hole(history):
    late = value(4)
    history.send(late)
    history.final[P0].append((6, late))


def skip(history):
    session = history.begin(None, P0)
    history.poll(session, 1, value(1))
    history.poll(session, 3, value(2))


def skip_over_what_was_not_committed(history):
    session = history.begin("g", P0, 2)
    history.poll(session, 3, value(2))


def non_monotonic_poll(history):
    session = history.begin("g", P0)
    for offset, one in ((0, value(0)), (1, value(1)), (0, value(0))):
        history.poll(session, offset, one)


def commit_lost(history):
    history.commit("g", P0, 5)
    history.commit("g", P0, 2, "fetch")


def unseen(history):
    late = value(4)
    history.send(late)
    history.final[P0].append((5, late))


PLANTED = {
    lost_write: "lost write: ", reused_offset: "reused offset: ", duplicate: "duplicate: ", order: "order: ", stranger: "stranger: ",
    a_record_of_a_deleted_topic: "stranger: ", hole: "hole: ", skip: "skip: ", skip_over_what_was_not_committed: "skip: ",
    non_monotonic_poll: "non-monotonic poll: ", commit_lost: "commit lost: ", unseen: "unseen: ",
}


def test_nothing_is_found_in_a_sound_history():
    assert anomalies(sound()) == []


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_an_anomaly_is_found(plant):
    history = sound()
    plant(history)
    found = anomalies(history)
    assert any(sentence.startswith(PLANTED[plant]) for sentence in found), found


def test_a_value_survives_its_encoding():
    for one in (value(0), value(12, "producer-7", 3, "a.b-c_d#17")):
        assert Value.decode(one.encode(b"x;y/z")) == one
