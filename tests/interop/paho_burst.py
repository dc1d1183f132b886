"""Paho with a wide window: many QoS 1 messages at once, each told when it is acknowledged, then DISCONNECT."""
import ssl
import sys

from paho.mqtt import client as mqtt

ca, device_id, user_name, token, host, port, count = sys.argv[1:]
count = int(count)
callback_version = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else []
acknowledged = []


def on_connect(client, userdata, flags, rc):
    for number in range(count):
        client.publish(f"devices/{device_id}/messages/events/number={number}", str(number), qos=1)


def on_publish(client, userdata, mid):
    acknowledged.append(mid)
    if len(acknowledged) == count:
        print("in order" if acknowledged == sorted(acknowledged) else f"out of order: {acknowledged}")
        client.disconnect()


client = mqtt.Client(*callback_version, client_id=device_id, protocol=mqtt.MQTTv311)
client.max_inflight_messages_set(100)
client.on_connect = on_connect
client.on_publish = on_publish
client.username_pw_set(user_name, token)
client.tls_set(ca_certs=ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
client.connect(host, port=int(port))
client.loop_forever()
