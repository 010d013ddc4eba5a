// A server made with the TypeScript SDK 1.x: `node typescript_1_server.mjs NAME http|stdio`.
//
// It asks and announces in the words of that SDK's own examples (`server.elicitInput`, `server.createMessage`, `registerTool` while
// it serves), which do not say to which call they belong: over HTTP they go over the session's own (GET) stream.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const load = createRequire(`${process.env.PEERS_NODE}/`);
const { McpServer } = load('@modelcontextprotocol/sdk/server/mcp.js');
const { StdioServerTransport } = load('@modelcontextprotocol/sdk/server/stdio.js');
const { StreamableHTTPServerTransport } = load('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { SubscribeRequestSchema, UnsubscribeRequestSchema } = load('@modelcontextprotocol/sdk/types.js');
const { z } = load('zod');

const MOST_SESSIONS = 256;
const PAGE = 'https://example.com/sign-in';
const WAIT_MS = 20_000;
const [name, transport] = process.argv.slice(2);
const readme = `peers://${name}/readme`;
const cancelledAt = new Map();
const text = (value) => ({ content: [{ type: 'text', text: value }] });

function addAskingTools(server) {
  const tool = (id, run) => server.registerTool(id, { description: id }, async () => text(await run()));
  tool('ask_name', async () => {
    const requestedSchema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
    const said = await server.server.elicitInput({ message: 'Who are you?', requestedSchema });
    return said.action === 'accept' ? `accept ${said.content.name}` : said.action;
  });
  tool('ask_url', async () => {
    const params = { mode: 'url', message: 'Please sign in', url: PAGE, elicitationId: 'sign-in-1' };
    return (await server.server.elicitInput(params)).action;
  });
  tool('ask_model', async () => {
    const messages = [{ role: 'user', content: { type: 'text', text: 'Say a word' } }];
    return `the model said ${(await server.server.createMessage({ messages, maxTokens: 20 })).content.text}`;
  });
  tool('ask_roots', async () => (await server.server.listRoots()).roots.map((root) => root.uri).join(' '));
}

function addAnnouncingTools(server) {
  const tool = (id, run) => server.registerTool(id, { description: id }, async (extra) => text(await run(extra)));
  const watched = new Set();
  tool('say_log', async (extra) => {
    await server.sendLoggingMessage({ level: 'info', data: 'a line for the log' }, extra.sessionId);
    return 'logged';
  });
  let added;
  tool('change_tools', async () => {
    if (added) added.remove();
    added = added ? undefined : server.registerTool('comes_and_goes', {}, async () => text('here'));
    return 'changed';
  });
  tool('touch', async () => {
    if (watched.has(readme)) await server.server.sendResourceUpdated({ uri: readme });
    return 'touched';
  });
  server.server.registerCapabilities({ resources: { subscribe: true } });
  server.server.setRequestHandler(SubscribeRequestSchema, (request) => (watched.add(request.params.uri), {}));
  server.server.setRequestHandler(UnsubscribeRequestSchema, (request) => (watched.delete(request.params.uri), {}));
}

function addWaitingTools(server) {
  const say = (extra, progress, total) => {
    const progressToken = extra._meta?.progressToken;
    const params = { progressToken, progress, total };
    return progressToken === undefined || extra.sendNotification({ method: 'notifications/progress', params });
  };
  server.registerTool('count', { inputSchema: { steps: z.number() } }, async ({ steps }, extra) => {
    for (let step = 1; step <= steps; step += 1) await say(extra, step, steps);
    return text(`counted to ${steps}`);
  });
  server.registerTool('wait_for_cancel', { inputSchema: { key: z.string() } }, async ({ key }, extra) => {
    await say(extra, 0, 1);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, WAIT_MS);
      extra.signal.addEventListener('abort', () => {
        cancelledAt.set(key, Date.now() / 1000);
        clearTimeout(timer);
        resolve();
      });
    });
    return text('waited');
  });
  server.registerTool('cancellations', { inputSchema: { key: z.string() } }, ({ key }) =>
    text(String(cancelledAt.get(key) ?? '')),
  );
}

function makeServer() {
  const server = new McpServer({ name, version: '1.0.0' }, { capabilities: { logging: {} } });
  server.registerTool('add', { inputSchema: { a: z.number(), b: z.number() } }, ({ a, b }) => text(String(a + b)));
  server.registerPrompt('greet', { argsSchema: { name: z.string() } }, (args) => ({
    messages: [{ role: 'user', content: { type: 'text', text: `Please greet ${args.name}.` } }],
  }));
  server.registerResource('readme', readme, {}, () => ({ contents: [{ uri: readme, text: `The server ${name}.` }] }));
  addAskingTools(server);
  addAnnouncingTools(server);
  addWaitingTools(server);
  return server;
}

const sessions = new Map();

async function serve(request, response) {
  let session = sessions.get(request.headers['mcp-session-id']);
  if (!session) {
    if (request.headers['mcp-session-id'] || sessions.size >= MOST_SESSIONS) {
      response.writeHead(request.headers['mcp-session-id'] ? 404 : 503).end();
      return;
    }
    session = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => sessions.set(id, session),
      onsessionclosed: (id) => sessions.delete(id),
    });
    await makeServer().connect(session);
  }
  await session.handleRequest(request, response);
}

if (transport === 'stdio') {
  await makeServer().connect(new StdioServerTransport());
} else {
  const listener = createServer(serve).listen(0, '127.0.0.1', () => {
    console.log(`http://127.0.0.1:${listener.address().port}/mcp`);
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}
