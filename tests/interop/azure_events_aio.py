"""The asynchronous half of Azure's Event Hubs SDK under remote control, and two consumers that share the partitions.

The argument and the answers are those of `azure_events.py`. Commands:

* `{"do": "batch", "count", "partition", "position", "time", "inclusive"}`: so many events with `receive_batch`.
* `{"do": "follow", "consumers"}`: so many consumers of all partitions, which share them by a checkpoint store in memory, and go
  on whatever happens. Each event is told: `{"event": "received", "consumer", "partition", "sequence", "body"}`; and whenever
  the shares change: `{"event": "shares", "partitions": [[...], ...]}`.
"""
import asyncio
import datetime
import json
import sys

from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.aio._eventprocessor.in_memory_checkpoint_store import InMemoryCheckpointStore

config = json.loads(sys.argv[1])


def tell(event, **details):
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def client(**more):
    return EventHubConsumerClient.from_connection_string(
        config["events"], "$Default", connection_verify=config["ca"], **more
    )


class Events:
    def __init__(self):
        self.following, self.shares = [], []

    async def batch(self, count, partition, position="-1", time=None, inclusive=False):
        if time is not None:
            position = datetime.datetime.fromtimestamp(time / 1000, datetime.timezone.utc)
        events, done = [], asyncio.get_running_loop().create_future()

        async def take(_, batch):
            events.extend(batch)
            if len(events) >= count and not done.done():
                done.set_result(None)

        async def fail(_, error):
            if not done.done():
                done.set_exception(error)

        async with client(retry_total=0) as consumer:
            receiving = asyncio.ensure_future(
                consumer.receive_batch(
                    take,
                    on_error=fail,
                    partition_id=partition,
                    starting_position=position,
                    starting_position_inclusive=inclusive,
                )
            )
            await done
            receiving.cancel()
        return [{"sequence": event.sequence_number, "body": event.body_as_str()} for event in events[:count]]

    async def follow(self, consumers):
        store = InMemoryCheckpointStore()
        for number in range(consumers):
            self.shares.append(set())
            consumer = client(checkpoint_store=store, load_balancing_interval=1, partition_ownership_expiration_interval=20)
            self.following.append(asyncio.ensure_future(self.consume(number, consumer)))

    async def consume(self, number, consumer):
        async def take(partition, event):
            if event is None:
                return
            tell(
                "received",
                consumer=number,
                partition=partition.partition_id,
                sequence=event.sequence_number,
                body=event.body_as_str(),
            )
            await partition.update_checkpoint(event)

        async def begin(partition):
            self.shares[number].add(partition.partition_id)
            self.tell_shares()

        async def end(partition, _):
            self.shares[number].discard(partition.partition_id)
            self.tell_shares()

        async with consumer:
            await consumer.receive(
                take, on_partition_initialize=begin, on_partition_close=end, starting_position="-1", max_wait_time=1
            )

    def tell_shares(self):
        tell("shares", partitions=[sorted(share) for share in self.shares])


async def main():
    events, loop = Events(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            result = await getattr(events, command.pop("do"))(**command)
        except Exception as error:  # whatever the SDK raises is what the test wants to know
            tell("failed", error=type(error).__name__, text=str(error))
        else:
            tell("done", result=result)
    for following in events.following:
        following.cancel()
    tell("end")


asyncio.run(main())
