"""Azure's Event Hubs SDK and the AMQP part of the service SDK under remote control.

The argument says as JSON how to connect: `{"ca", "events", "service", "transport"}`, the two connection strings, and `tls` or
`websocket`. Then it reads one command per line from stdin, and answers each with `{"event": "done", "result": ...}` or with
`{"event": "failed", "error": CLASS, "text": ...}`:

* `{"do": "hub", "entity"}`, `{"do": "partition", "id"}`: properties; `entity` is the name of the event hub.
* `{"do": "receive", "count", "partition", "position", "inclusive", "time", "group", "entity"}`: so many events; `time` is
  milliseconds since 1970, `group` the consumer group.
* `{"do": "own", "partition", "level", "group"}`: reads with an owner level until it loses the partition; answered once the first event is
  there. `{"do": "lost"}` waits until one has lost it: the level and why.
* `{"do": "send", "device", "body", "properties"}`: a cloud-to-device message.
"""
import datetime
import json
import queue
import sys
import threading

import certifi

config = json.loads(sys.argv[1])
# uamqp trusts certifi's bundle and can be told of no other.
with open(certifi.where()) as bundle, open(config["ca"]) as own:
    trusted, ca = bundle.read(), own.read()
if ca not in trusted:
    with open(certifi.where(), "a") as bundle:
        bundle.write("\n" + ca)

from azure.eventhub import EventHubConsumerClient, TransportType  # noqa: E402
from azure.iot.hub import IoTHubRegistryManager  # noqa: E402


def tell(event, **details):
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def to_json(event):
    own = {text(key): text(value) for key, value in (event.properties or {}).items()}
    system = {text(key): text(value) for key, value in event.system_properties.items()}
    body = event.body_as_str() if event.body_type else ""
    return {"sequence": event.sequence_number, "offset": event.offset, "body": body, "properties": own, "system": system}


class Events:
    def __init__(self):
        self.losses = queue.Queue()
        websocket = config["transport"] == "websocket"
        kind = TransportType.AmqpOverWebsocket if websocket else TransportType.Amqp
        self.client = lambda group="$Default", entity="devicebound": EventHubConsumerClient.from_connection_string(
            config["events"].replace("=devicebound", "=" + entity), group, connection_verify=config["ca"], transport_type=kind, retry_total=0
        )

    def hub(self, entity="devicebound"):
        with self.client(entity=entity) as client:
            properties = client.get_eventhub_properties()
        return {"name": properties["eventhub_name"], "partitions": properties["partition_ids"]}

    def partition(self, id):
        with self.client() as client:
            properties = client.get_partition_properties(id)
        return {key: value for key, value in properties.items() if key != "last_enqueued_time_utc"}

    def receive(self, count, partition, position="-1", inclusive=False, time=None, group="$Default", entity="devicebound"):
        if time is not None:
            position = datetime.datetime.fromtimestamp(time / 1000, datetime.timezone.utc)
        client, events, errors = self.client(group, entity), [], []

        def take(_, event):
            events.append(event)
            if len(events) >= count:
                threading.Thread(target=client.close).start()

        def fail(_, error):
            errors.append(error)
            threading.Thread(target=client.close).start()

        client.receive(
            take, on_error=fail, partition_id=partition, starting_position=position, starting_position_inclusive=inclusive
        )
        if errors:
            raise errors[0]
        return [to_json(event) for event in events[:count]]

    def own(self, partition, level, group="$Default"):
        client, begun = self.client(group), threading.Event()

        def lose(_, error):
            self.losses.put({"level": level, "text": str(error)})
            threading.Thread(target=client.close).start()

        def run():
            client.receive(
                lambda _, event: begun.set(),
                on_error=lose,
                partition_id=partition,
                owner_level=level,
                starting_position="-1",
            )

        threading.Thread(target=run, daemon=True).start()
        begun.wait()

    def lost(self):
        return self.losses.get(timeout=50)

    def send(self, device, body, properties):
        IoTHubRegistryManager.from_connection_string(config["service"]).send_c2d_message(device, body, properties)


def main():
    events = Events()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            result = getattr(events, command.pop("do"))(**command)
        except Exception as error:  # whatever the SDK raises is what the test wants to know
            tell("failed", error=type(error).__name__, text=str(error))
        else:
            tell("done", result=result)
    tell("end")


main()
