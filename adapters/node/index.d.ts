/** A registered device. */
export interface Device {
  deviceId: string;
  /** For `Client.fromConnectionString`. */
  connectionString: string;
  primaryKey: string;
}

/** One device-to-cloud message as a back end sees it. */
export interface Message {
  /** Its place in the hub's telemetry; `telemetry({ after })` goes on behind it. */
  cursor: number;
  deviceId: string;
  moduleId?: string;
  enqueuedTime: string;
  body: Buffer;
  properties: Record<string, string | null>;
  systemProperties: Record<string, string | null>;
}

/** An IoT Hub that runs until it is stopped. */
export interface Hub extends AsyncDisposable {
  /** The hub's address, which is its host name, too. */
  readonly host: string;
  /** The path of the certificate that signed the hub's. */
  readonly caPath: string;
  /** The certificate itself, for `client.setOptions({ ca })`. */
  readonly ca: string;
  /** The variables from which SDKs read their CA, for child processes. */
  readonly environ: Record<string, string>;
  /** Of the device `demo`, which every hub starts with. */
  readonly deviceConnectionString: string;
  readonly serviceConnectionString: string;
  /** Event Hubs-compatible; `undefined` where the program has no AMQP. */
  readonly eventHubConnectionString: string | undefined;
  /** Registers a device with keys; rejects with the hub's own words. */
  addDevice(deviceId: string): Promise<Device>;
  /** Asks the service API; rejects with the hub's own words. */
  request(method: string, path: string, body?: unknown): Promise<any>;
  /** What devices sent, from the first message behind `after`, without end. */
  telemetry(options?: { after?: number }): AsyncGenerator<Message>;
  /** Ends the hub. What it kept is gone. */
  stop(): Promise<void>;
}

/** Starts a hub at a loopback address of its own, and waits until it is ready. `args`: flags of `devicebound hub`. */
export function startHub(options?: { args?: string[] }): Promise<Hub>;
