// What both TypeScript clients do for the matrix; the twin of driver.py.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const OPERATION_MS = 10_000;

/** Loads a package of the peers' environment, whose folder is $PEERS_NODE. */
export const load = createRequire(`${process.env.PEERS_NODE}/`);

/** Whether a target is one of HTTP+SSE: see driver.py. */
export const isSse = ({ url }) => url !== undefined && new URL(url).pathname.split('/')[1] === 'sse';

/**
 * Counts reports of progress as they reach the library. Over HTTP+SSE, with and without a gateway, it forgets its caller's
 * `onprogress` when the answer comes in the same read, before it hands on the reports that came ahead of it.
 */
export function countArrivals(client) {
  const { transport } = client;
  const take = transport.onmessage;
  client.arrived = 0;
  transport.onmessage = (message, extra) => {
    client.arrived += message.method === 'notifications/progress';
    take(message, extra);
  };
}

class Failed extends Error {}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const textOf = (blocks) => blocks.map((block) => block.text ?? '').join('');

function holds(text, expected) {
  if (!text.includes(expected)) throw new Failed(`expected '${expected}' in '${text.slice(0, 200)}'`);
  return text.slice(0, 60);
}

async function callText(client, tool, args, options) {
  const result = await client.callTool(tool, args, options);
  if (result.isError) throw new Failed(JSON.stringify(result.content));
  return textOf(result.content);
}

const operations = {
  async list(client, job) {
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    const missing = job.expect.filter((name) => !names.includes(name));
    if (missing.length) throw new Failed(`not listed: ${missing}; listed: ${names.slice(0, 20)}`);
    return `${names.length} tools`;
  },
  async call(client, job) {
    return holds(await callText(client, job.tool, job.arguments, {}), job.expect);
  },
  async prompt(client, job) {
    const { messages } = await client.getPrompt({ name: job.prompt, arguments: job.arguments });
    return holds(textOf(messages.map((message) => message.content)), job.expect);
  },
  async resource(client, job) {
    return holds(textOf((await client.readResource({ uri: job.uri })).contents), job.expect);
  },
  async progress(client, job) {
    let reports = 0;
    const before = client.arrived;
    await callText(client, job.tool, job.arguments, { onprogress: () => (reports += 1) });
    if (before !== undefined) reports = client.arrived - before;
    if (reports < job.least) throw new Failed(`${reports} reports of progress, expected ${job.least} or more`);
    return `${reports} reports`;
  },
  async cancel(client, job) {
    const giveUp = new AbortController();
    let begun;
    const started = new Promise((resolve) => (begun = resolve));
    const wait = callText(client, job.tool, { key: job.key }, { signal: giveUp.signal, onprogress: () => begun() });
    wait.catch(() => {});
    await Promise.race([started, wait]);
    const cancelledAt = Date.now();
    giveUp.abort(new Error('the matrix gave it up'));
    await wait.catch(() => {});
    for (let round = 0; round < 40; round += 1) {
      const noticed = await callText(client, job.record, { key: job.key }, {});
      if (noticed) {
        const late = Number(noticed) * 1000 - cancelledAt;
        if (late > job.within_ms) {
          throw new Failed(`the server noticed ${late.toFixed(0)} ms later, expected ${job.within_ms} or fewer`);
        }
        return `${late.toFixed(0)} ms`;
      }
      await pause(25);
    }
    throw new Failed('the server did not notice');
  },
};

function say(target, op, error, detail, since) {
  const line = { target, op, ok: !error, detail: error ? `${error.name}: ${error.message}`.slice(0, 400) : detail };
  console.log(JSON.stringify({ ...line, ms: Date.now() - since }));
}

async function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failed(`no end after ${OPERATION_MS} ms`)), OPERATION_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A transport to a target: over HTTP, or to a process whose input and output are spoken to. */
export function transportTo(target, { Http, Sse, Stdio }) {
  if (!target.command) return new (isSse(target) ? Sse : Http)(new URL(target.url));
  const [command, ...args] = target.command;
  return new Stdio({ command, args, env: target.env });
}

/** Does the job that stands on standard input; `open(target, mode)` gives a connected client. */
export async function main(open) {
  const job = JSON.parse(readFileSync(0, 'utf8'));
  for (const target of job.targets) {
    let client;
    const since = Date.now();
    try {
      client = await within(open(target, job.mode ?? 'auto'));
    } catch (error) {
      for (const operation of target.operations) say(target.name, operation.op, error, '', since);
      continue;
    }
    for (const operation of target.operations) {
      const start = Date.now();
      try {
        say(target.name, operation.op, null, await within(operations[operation.op](client, operation)), start);
      } catch (error) {
        say(target.name, operation.op, error, '', start);
      }
    }
    await within(client.close()).catch((error) => say(target.name, 'close', error, '', since));
  }
  process.exit(0);
}
