"""Paho over WebSocket: one QoS 1 message whose body is so large that its frame needs a 64-bit length, then DISCONNECT."""
import ssl
import sys

from paho.mqtt import client as mqtt

ca, device_id, user_name, token, host, port, size = sys.argv[1:]
callback_version = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else []


def on_connect(client, userdata, flags, rc):
    print("connected", rc)
    client.publish(f"devices/{device_id}/messages/events/", b"x" * int(size), qos=1)


def on_publish(client, userdata, mid):
    print("acknowledged")
    client.disconnect()


client = mqtt.Client(*callback_version, client_id=device_id, protocol=mqtt.MQTTv311, transport="websockets")
client.on_connect = on_connect
client.on_publish = on_publish
client.ws_set_options(path="/$iothub/websocket")
client.username_pw_set(user_name, token)
client.tls_set(ca_certs=ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
client.connect(host, port=int(port))
client.loop_forever()
