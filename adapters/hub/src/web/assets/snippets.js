// Lines to paste, so that this device sends its first message with the reader's own tools.

import { get } from './api.js';
import { action, field, fill, h, note, section } from './dom.js';

const BODY = '{"temperature":21.5}';
const literal = JSON.stringify; // a string that Python, JavaScript, C# and Java read alike
const word = (text) => `'${text.replaceAll("'", "'\\''")}'`; // one word for a shell

/** Name, and the text for a device with this connection string; `ca.pem` is what the page offers to save. */
const SNIPPETS = [
  ['Python: azure-iot-device', ({ connection }) => `# pip install azure-iot-device
from azure.iot.device import IoTHubDeviceClient
client = IoTHubDeviceClient.create_from_connection_string(
    ${literal(connection)},
    server_verification_cert=open("ca.pem").read())
client.send_message(${literal(BODY)})
client.shutdown()`],
  ['Node: azure-iot-device', ({ connection }) => `// npm install azure-iot-device azure-iot-device-mqtt
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const client = Client.fromConnectionString(${literal(connection)}, Mqtt);
client.setOptions({ ca: require('fs').readFileSync('ca.pem', 'utf8') })
  .then(() => client.sendEvent(new Message(${literal(BODY)})))
  .then(() => client.close());`],
  ['.NET: Microsoft.Azure.Devices.Client', ({ connection }) => `// dotnet add package Microsoft.Azure.Devices.Client
// .NET takes the CA from the store of the system: import ca.pem there.
using var client = DeviceClient.CreateFromConnectionString(${literal(connection)}, TransportType.Mqtt_Tcp_Only);
await client.SendEventAsync(new Message(System.Text.Encoding.UTF8.GetBytes(${literal(BODY)})));`],
  ['Java: com.microsoft.azure.sdk.iot', ({ connection }) => `// iot-device-client; the CA as text goes into an SSLContext, or into the keystore of the JVM:
// keytool -importcert -noprompt -alias devicebound -file ca.pem -cacerts
DeviceClient client = new DeviceClient(${literal(connection)}, IotHubClientProtocol.MQTT);
client.open(true);
client.sendEvent(new Message(${literal(BODY)}));
client.close();`],
  ['mosquitto_pub', ({ connection, id }) => `mosquitto_pub -h ${location.hostname} -p 8883 --cafile ca.pem -i ${word(id)} \\
  -u ${word(`${location.hostname}/${id}/?api-version=2021-04-12`)} \\
  -P "$(devicebound sas --device-connection-string ${word(connection)})" \\
  -q 1 -t ${word(`devices/${id}/messages/events/`)} -m ${word(BODY)}`],
];

/** A choice of snippets for the device. */
export function snippets(id) {
  const kind = h('select', null, SNIPPETS.map(([name]) => h('option', null, name)));
  const text = h('pre', { tabindex: '0', 'aria-label': 'Snippet' });
  const says = note();
  let connection = `HostName=${location.hostname};DeviceId=${id};SharedAccessKey=…`;
  const made = () => SNIPPETS[kind.selectedIndex][1]({ connection, id });
  const draw = () => fill(text, made().replace(/SharedAccessKey=[^"';]*/, 'SharedAccessKey=…'));
  kind.addEventListener('change', draw);
  const copy = action(h('button', { type: 'button' }, 'Copy with the key'), says, async () => {
    const { authentication } = await get(`/devices/${encodeURIComponent(id)}`);
    const key = authentication?.symmetricKey?.primaryKey;
    if (!key) throw new Error(`This device has a certificate (${authentication?.type}): see azure-iot-device's X509, with ca.pem as here.`);
    connection = `HostName=${location.hostname};DeviceId=${id};SharedAccessKey=${key}`;
    await navigator.clipboard.writeText(made());
    says.good('Copied.');
  });
  draw();
  return section('First message', h('p', { class: 'quiet' }, 'Save ', h('a', { href: '/page/ca.pem', download: 'ca.pem' }, 'ca.pem'), ', the authority that every client has to trust, next to the program.'),
    h('div', { class: 'bar' }, field('With', kind), copy), text, says.line);
}
