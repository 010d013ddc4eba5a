// What both TypeScript clients do for the matrix; the twin of driver.py.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const OPERATION_MS = 10_000;
const NEWS_MS = 1000;
const MOST_TRIGGERS = 3;
const MOST_CANCELS = 3;
const MOST_HEARD = 1000;
export const CHANGED_TOOLS = 'notifications/tools/list_changed';
export const UPDATED = 'notifications/resources/updated';
export const LOGGED = 'notifications/message';
export const CAPABILITIES = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

/** Loads a package of the peers' environment, whose folder is $PEERS_NODE. */
export const load = createRequire(`${process.env.PEERS_NODE}/`);

/** Whether a target is one of HTTP+SSE: see driver.py. */
export const isSse = ({ url }) => url !== undefined && new URL(url).pathname.split('/')[1] === 'sse';

/**
 * Counts reports of progress as they reach the library. Over HTTP+SSE and stdio, with or without a gateway, it forgets its caller's
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

/** What a client hears in the midst of an operation, and what it says when it is asked. */
export class Ears {
  answer = 'accept';
  heard = [];
  ever = new Set();
  waiting = new Set();

  note(method, words = '') {
    this.ever.add(method);
    if (this.heard.length < MOST_HEARD) this.heard.push([method, words]);
    for (const look of this.waiting) look();
  }

  has(method, words) {
    return this.heard.some(([name, said]) => name === method && said.includes(words));
  }

  /** Whether it came within that time. */
  hear(method, words, ms) {
    return new Promise((resolve) => {
      const end = (came) => {
        clearTimeout(timer);
        this.waiting.delete(look);
        resolve(came);
      };
      const look = () => this.has(method, words) && end(true);
      const timer = setTimeout(() => end(false), ms);
      this.waiting.add(look);
      look();
    });
  }

  /** The answers to requests; both libraries take them as they are. */
  elicit({ params }) {
    const schema = params.requestedSchema;
    this.note('elicitation/create', schema ? 'form' : 'url');
    if (!schema || this.answer !== 'accept') return { action: this.answer };
    const fill = (name) => [name, schema.properties[name].default ?? 'Ada'];
    return { action: 'accept', content: Object.fromEntries((schema.required ?? []).map(fill)) };
  }

  sample() {
    this.note('sampling/createMessage');
    return { role: 'assistant', content: { type: 'text', text: 'peregrine' }, model: 'none' };
  }

  roots() {
    this.note('roots/list');
    return { roots: [{ uri: 'file:///peers/root' }] };
  }
}

function holds(text, expected) {
  if (!text.includes(expected)) throw new Failed(`expected '${expected}' in '${text.slice(0, 200)}'`);
  return text.slice(0, 60);
}

async function callText(client, tool, args, options) {
  const result = await client.callTool(tool, args, options);
  if (result.isError) throw new Failed(JSON.stringify(result.content));
  return textOf(result.content);
}

/** Milliseconds from giving up a wait that has begun to the moment the server noticed. */
async function cancelOnce(client, job, key) {
  const giveUp = new AbortController();
  let begun;
  const started = new Promise((resolve) => (begun = resolve));
  const wait = callText(client, job.tool, { key }, { signal: giveUp.signal, onprogress: () => begun() });
  wait.catch(() => {});
  await Promise.race([started, wait]);
  const cancelledAt = Date.now();
  giveUp.abort(new Error('the matrix gave it up'));
  await wait.catch(() => {});
  for (let round = 0; round < 40; round += 1) {
    const noticed = await callText(client, job.record, { key }, {});
    if (noticed) return Number(noticed) * 1000 - cancelledAt;
    await pause(25);
  }
  throw new Failed('the server did not notice');
}

const operations = {
  async list({ client }, job) {
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    const missing = job.expect.filter((name) => !names.includes(name));
    if (missing.length) throw new Failed(`not listed: ${missing}; listed: ${names.slice(0, 20)}`);
    return `${names.length} tools`;
  },
  async call({ client }, job) {
    return holds(await callText(client, job.tool, job.arguments, {}), job.expect);
  },
  async prompt({ client }, job) {
    const { messages } = await client.getPrompt({ name: job.prompt, arguments: job.arguments });
    return holds(textOf(messages.map((message) => message.content)), job.expect);
  },
  async resource({ client }, job) {
    return holds(textOf((await client.readResource({ uri: job.uri })).contents), job.expect);
  },
  async progress({ client }, job) {
    let reports = 0;
    const before = client.arrived;
    await callText(client, job.tool, job.arguments, { onprogress: () => (reports += 1) });
    if (before !== undefined) reports = client.arrived - before;
    if (reports < job.least) throw new Failed(`${reports} reports of progress, expected ${job.least} or more`);
    return `${reports} reports`;
  },
  async cancel({ client }, job) {
    const late = [];
    for (let number = 0; number < MOST_CANCELS; number += 1) {
      late.push(await cancelOnce(client, job, `${job.key} ${number}`));
      if (late.at(-1) <= job.within_ms) return `${late.at(-1).toFixed(0)} ms`;
    }
    throw new Failed(`the server noticed ${late} ms later, expected ${job.within_ms} or fewer`);
  },
  async ask({ client, ears }, job) {
    ears.answer = job.answer ?? 'accept';
    ears.heard = [];
    const said = holds(await callText(client, job.tool, job.arguments, {}), job.expect);
    const askedBefore = job.unasked || (job.earlier && ears.ever.has(job.method));
    if (!askedBefore && !ears.has(job.method, job.words ?? '')) {
      throw new Failed(`the client was not asked (${job.method}), and yet the server says '${said}'`);
    }
    return said;
  },
  async log({ client, ears }, job) {
    ears.heard = [];
    await client.loggedCall(job.tool, job.arguments, job.level);
    const came = await ears.hear(LOGGED, job.expect, NEWS_MS);
    if (job.toggles) await callText(client, job.tool, job.arguments, {});
    if (!came) throw new Failed(`no log line with '${job.expect}' within ${NEWS_MS} ms`);
    return job.expect;
  },
  async news({ client, ears }, job) {
    const method = job.uri ? UPDATED : CHANGED_TOOLS;
    const stop = await client.watch(job.uri);
    try {
      for (let trigger = 1; trigger <= MOST_TRIGGERS; trigger += 1) {
        ears.heard = [];
        await callText(client, job.tool, job.arguments, {});
        const came = await ears.hear(method, job.uri ?? '', NEWS_MS);
        if (job.toggles) await callText(client, job.tool, job.arguments, {});
        if (came) return trigger === 1 ? '' : `after ${trigger} changes`;
      }
    } finally {
      await stop();
    }
    throw new Failed(`${MOST_TRIGGERS} changes, and no ${method} within ${NEWS_MS} ms of any`);
  },
};

function say(target, job, error, detail, since) {
  const line = { target, op: job.as ?? job.op, ok: !error, ms: Date.now() - since };
  console.log(JSON.stringify({ ...line, detail: error ? `${error.name}: ${error.message}`.slice(0, 400) : detail }));
}

async function within(promise, ms = OPERATION_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failed(`no end after ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A transport to a target: over HTTP, or to a process whose input and output are spoken to. */
export function transportTo(target, { Http, Sse, Stdio }) {
  if (!target.command) return new (isSse(target) ? Sse : Http)(new URL(target.url));
  const [command, ...args] = target.command;
  return new Stdio({ command, args, env: target.env });
}

async function runTarget(open, mode, target) {
  const ears = new Ears();
  const since = Date.now();
  let client;
  try {
    client = await within(open(target, mode, ears));
  } catch (error) {
    for (const job of target.operations) say(target.name, job, error, '', since);
    return;
  }
  for (const job of target.operations) {
    const start = Date.now();
    const ms = job.seconds && job.seconds * 1000;
    try {
      say(target.name, job, null, await within(operations[job.op]({ client, ears }, job), ms), start);
    } catch (error) {
      say(target.name, job, error, '', start);
    }
  }
  await within(client.close()).catch((error) => say(target.name, { op: 'close' }, error, '', since));
}

/** Does the jobs that come on standard input; `open(target, mode, ears)` gives a connected client. */
export async function main(open) {
  let mode;
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    if (mode === undefined) {
      mode = job.mode;
    } else {
      await runTarget(open, mode, job);
      console.log(JSON.stringify({ target: job.name, done: true }));
    }
  }
  process.exit(0);
}
