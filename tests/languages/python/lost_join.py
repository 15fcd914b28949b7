"""Counts how often kafka-python 3 forgets that it joined: python lost_join.py BOOTSTRAP RUNS POLL_MS [whole].

kafka-python joins in a task that outlives the poll that began it, and the next poll awaits the task if it still sees a need to join
(`ConsumerCoordinator.need_rejoin`). After a change of metadata the need is that two snapshots differ, and the leader's task itself makes
them equal when it assigns. So when a poll's time is up before SyncGroup is answered, no later poll takes the answer: no
assignment, and no heartbeats, which are off while it joins, until the session has run out at the coordinator.

Each run is a new topic of four partitions and a sole member that polls for at most POLL_MS at a time. It ends when the member has its
partitions, or when an answer of SyncGroup without an error has lain there for `LOST_S`. With `whole` a join that is not taken is a
need to join, as in Kafka's own client (`rejoinNeededOrPending`): nothing is lost then, so it is this.
"""

import sys
import time
import uuid

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.coordinator.consumer import ConsumerCoordinator
from use_kafka_python import consumer, lost_join

LOST_S = 3
GIVEN_UP_S = 30


def whole():
    """Has `need_rejoin` say yes as long as a join is under way or not taken, as Kafka's own client does."""
    asked = ConsumerCoordinator.need_rejoin
    ConsumerCoordinator.need_rejoin = lambda self: asked(self) or self._join_task is not None


def one(bootstrap, poll_ms):
    """joined, lost (the client has the answer and forgets it), or missing (the coordinator did not answer)."""
    topic = f"lost-join-{uuid.uuid4().hex[:12]}"
    administrator = KafkaAdminClient(bootstrap_servers=bootstrap)
    administrator.create_topics([NewTopic(topic, 4, 1)])
    administrator.close()
    client = consumer(bootstrap, topic)
    client.subscribe([topic])
    began, since = time.monotonic(), None
    try:
        while len(client.assignment()) < 4:
            client.poll(poll_ms)
            now = time.monotonic()
            since = (since or now) if lost_join(client) else None
            if since and now - since > LOST_S:
                return "lost"
            if now - began > GIVEN_UP_S:
                return "missing"
        return "joined"
    finally:
        client.close()


if __name__ == "__main__":
    bootstrap, runs, poll_ms, *more = sys.argv[1:]
    if more == ["whole"]:
        whole()
    counts = {"joined": 0, "lost": 0, "missing": 0}
    for _ in range(int(runs)):
        counts[one(bootstrap, int(poll_ms))] += 1
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
