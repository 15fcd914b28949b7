"""A history of what clients were told, and the search for what may not be in one.

The anomalies are those of Jepsen's tests of Kafka: lost write, duplicate, reused (inconsistent) offset, order, skip, non-monotonic poll; and
committed offsets that go back, records that a group never saw, records of a topic that was deleted. Nothing here talks to a broker.
"""

import collections
import threading


class Value(collections.namedtuple("Value", "generation producer partition sequence")):
    """Which record this is. `generation` names one life of a topic; no two records are alike."""

    def __str__(self):
        return f"{self.generation}/{self.producer}/{self.partition}/{self.sequence}"

    def encode(self, padding=b""):
        return f"{self};".encode() + padding

    @classmethod
    def decode(cls, content):
        generation, producer, partition, sequence = content.split(b";", 1)[0].decode().rsplit("/", 3)
        return cls(generation, producer, int(partition), int(sequence))


class History:
    """What happened, as the clients saw it; every method may be called on any thread. A partition is (generation of its topic, number)."""

    def __init__(self):
        self.lock = threading.Lock()
        # What was handed to a producer, acknowledged or not.
        self.sent = set()
        # (partition, offset, value) in the order of the acknowledgements.
        self.acknowledged = []
        # By session, which is one consumer's hold of one partition from assignment to revocation: [(offset, value)].
        self.polls = collections.defaultdict(list)
        # Session: (group or None, partition, offset at which the group's commits let it begin or None).
        self.sessions = {}
        # (group, partition): the acknowledged commits, and what was asked for later, in order: ("commit" | "fetch", offset).
        self.commits = collections.defaultdict(list)
        # Partition: every record from its beginning to its end, [(offset, value)], read when all was over.
        self.final = {}

    def send(self, value):
        with self.lock:
            self.sent.add(value)

    def acknowledge(self, partition, offset, value):
        with self.lock:
            self.acknowledged.append((partition, offset, value))

    def begin(self, group, partition, start=None):
        """A session begins; returns its number."""
        with self.lock:
            number = len(self.sessions)
            self.sessions[number] = (group, partition, start)
            return number

    def poll(self, session, offset, value):
        with self.lock:
            self.polls[session].append((offset, value))

    def commit(self, group, partition, offset, kind="commit"):
        with self.lock:
            self.commits[group, partition].append((kind, offset))

    def finish(self, partition, records):
        with self.lock:
            self.final[partition] = records


def anomalies(history):
    """Sentences; none when all is well."""
    known = _known(history)
    return [
        *_strangers(history, known), *_reused(known), *_duplicates(known), *_lost(history), *_holes(history), *_order(history),
        *_polls(history, known), *_commits(history), *_unseen(history),
    ]


def _known(history):
    """What anybody was told to be at an offset: {partition: {offset: values}}."""
    known = collections.defaultdict(lambda: collections.defaultdict(set))
    for partition, offset, value in history.acknowledged:
        known[partition][offset].add(value)
    for session, polls in history.polls.items():
        for offset, value in polls:
            known[history.sessions[session][1]][offset].add(value)
    for partition, records in history.final.items():
        for offset, value in records:
            known[partition][offset].add(value)
    return known


def _strangers(history, known):
    for (generation, number), offsets in known.items():
        for offset, values in offsets.items():
            for value in values:
                if value.generation != generation or value.partition != number:
                    yield f"stranger: {generation}-{number} holds {value} at {offset}"
                elif value not in history.sent:
                    yield f"stranger: {value} at {offset} was never sent"


def _reused(known):
    for (generation, number), offsets in known.items():
        for offset, values in offsets.items():
            if len(values) > 1:
                yield f"reused offset: {generation}-{number} at {offset} is {' and '.join(sorted(map(str, values)))}"


def _duplicates(known):
    for (generation, number), offsets in known.items():
        places = collections.defaultdict(list)
        for offset, values in offsets.items():
            for value in values:
                places[value].append(offset)
        for value, found in places.items():
            if len(found) > 1:
                yield f"duplicate: {value} lies in {generation}-{number} at {sorted(found)}"


def _lost(history):
    there = {partition: dict(records) for partition, records in history.final.items()}
    for partition, offset, value in history.acknowledged:
        if partition in there and offset not in there[partition]:
            yield f"lost write: {value} was acknowledged at {offset} and is not there"


def _holes(history):
    for (generation, number), records in history.final.items():
        for at, (offset, _) in enumerate(records):
            if offset != at:
                yield f"hole: {generation}-{number} goes on at {offset} after {at - 1}"
                break


def _order(history):
    for (generation, number), records in history.final.items():
        newest = {}
        for offset, value in records:
            if value.sequence <= newest.get(value.producer, -1):
                yield f"order: {value} at {offset} follows {newest[value.producer]} of its producer in {generation}-{number}"
            newest[value.producer] = value.sequence


def _polls(history, known):
    for session, polls in history.polls.items():
        group, partition, start = history.sessions[session]
        present = sorted(known[partition])
        index = {offset: at for at, offset in enumerate(present)}
        where = f"{partition[0]}-{partition[1]} in session {session} of {group or 'a reader'}"
        before = None
        for offset, _ in polls:
            if before is None:
                # What lies below the group's commit was seen by somebody; what lies between was skipped.
                if start is not None and any(start <= other < offset for other in present[: index[offset]]):
                    yield f"skip: {where} begins at {offset}, committed was {start}"
            elif offset <= before:
                yield f"non-monotonic poll: {where} goes from {before} to {offset}"
            elif index[offset] != index[before] + 1:
                yield f"skip: {where} goes from {before} to {offset}, and {present[index[before] + 1]} is there"
            before = offset


def _commits(history):
    for (group, partition), events in history.commits.items():
        newest = -1
        for kind, offset in events:
            if kind == "fetch" and offset < newest:
                yield f"commit lost: {group} committed {newest} in {partition[0]}-{partition[1]}, and is told {offset}"
            if kind == "commit":
                newest = offset


def _unseen(history):
    seen = collections.defaultdict(set)
    groups = set()
    for session, polls in history.polls.items():
        group, partition, _ = history.sessions[session]
        if group is not None:
            groups.add((group, partition[0]))
            seen[group, partition].update(offset for offset, _ in polls)
    for group, generation in sorted(groups):
        for partition, records in history.final.items():
            if partition[0] != generation:
                continue
            missed = [offset for offset, _ in records if offset not in seen[group, partition]]
            if missed:
                yield f"unseen: {group} never saw {len(missed)} records of {generation}-{partition[1]}, the first at {missed[0]}"
