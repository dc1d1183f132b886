# The program of Microsoft's document on IoT Hub and MQTT (2018), as it stands there. Changed are the lines that end in
# "# <-", and nothing else: the values for the placeholders, the address to dial, the TLS version, paho 2's callback version.
from paho.mqtt import client as mqtt
import ssl
import sys # <-

path_to_root_cert = sys.argv[1] # <-
device_id = sys.argv[2] # <-
sas_token = sys.argv[3] # <-
iot_hub_name = sys.argv[4] # <-
host, port = sys.argv[5], int(sys.argv[6]) # <-
callback_version = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else [] # <-

def on_connect(client, userdata, flags, rc):
  print ("Device connected with result code: " + str(rc))
def on_disconnect(client, userdata, rc):
  print ("Device disconnected with result code: " + str(rc))
def on_publish(client, userdata, mid):
  print ("Device sent message")

client = mqtt.Client(*callback_version, client_id=device_id, protocol=mqtt.MQTTv311) # <-

client.on_connect = on_connect
client.on_disconnect = on_disconnect
client.on_publish = on_publish

client.username_pw_set(username=iot_hub_name+".azure-devices.net/" + device_id, password=sas_token)

client.tls_set(ca_certs=path_to_root_cert, certfile=None, keyfile=None, cert_reqs=ssl.CERT_REQUIRED, tls_version=ssl.PROTOCOL_TLSv1_2, ciphers=None) # <-
client.tls_insecure_set(False)

client.connect(host, port=port) # <-

client.publish("devices/" + device_id + "/messages/events/", "{id=123}", qos=1)
client.loop_forever()
