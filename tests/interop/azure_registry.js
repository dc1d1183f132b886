// Azure's service SDK for Node over HTTPS under remote control. NODE_EXTRA_CA_CERTS names the hub's CA.
//
// The argument is the service's connection string. Then a command per line from stdin, `{"do": "PART.METHOD", "arguments"}`,
// where a part is `jobs` (JobClient), `registry` (Registry) or `twins` (DigitalTwinClient); a `{"date": SECONDS}` among the
// arguments becomes the time so many seconds from now. `{"do": "query", "query", "size"}` is all pages of a query over twins,
// `{"do": "jobs", "type", "status", "size"}` of one over jobs. Each command is answered with `{"event": "done", "result"}` or
// with `{"event": "failed", "error": CLASS, "text"}`.
'use strict';

const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');

// The packages are beside the environment, not beside this script.
const load = createRequire(path.join(process.cwd(), 'package.json'));
const { DigitalTwinClient, IoTHubTokenCredentials, JobClient, Registry } = load('azure-iothub');

const connectionString = process.argv[2];
const parts = {
  jobs: JobClient.fromConnectionString(connectionString),
  registry: Registry.fromConnectionString(connectionString),
  twins: new DigitalTwinClient(new IoTHubTokenCredentials(connectionString)),
};

// The SDK hangs the HTTP response on results, which is no JSON.
const withoutResponse = (name, value) => (name === '_response' ? undefined : value);

function tell(event, details) {
  process.stdout.write(JSON.stringify({ event, ...details }, withoutResponse) + '\n');
}

async function pages(query) {
  const all = [];
  while (query.hasMoreResults) {
    const page = (await query.next(query.continuationToken)).result;
    all.push(page.map((row) => (row.toJSON ? row.toJSON() : row)));
  }
  return all;
}

async function run({ do: name, arguments: given, ...more }) {
  if (name === 'query') return pages(parts.registry.createQuery(more.query, more.size));
  if (name === 'jobs') return pages(parts.jobs.createQuery(more.type, more.status, more.size));
  const [part, method] = name.split('.');
  const isDate = (argument) => argument && typeof argument === 'object' && 'date' in argument;
  const values = given.map((value) => (isDate(value) ? new Date(Date.now() + value.date * 1000) : value));
  const result = await parts[part][method](...values);
  // What came beside it is no JSON.
  const own = ['jobStatus', 'responseBody'].find((member) => result && result[member] !== undefined);
  return own ? result[own] : result;
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const result = await run(JSON.parse(line));
      tell('done', { result: result === undefined ? null : result });
    } catch (error) {
      tell('failed', { error: error.name, text: error.message });
    }
  }
  tell('end');
  process.exit(0);
}

main();
