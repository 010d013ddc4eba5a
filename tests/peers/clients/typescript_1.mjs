// The client of the TypeScript SDK 1.x, which knows legacy revisions alone.
import { CAPABILITIES, CHANGED_TOOLS, LOGGED, UPDATED } from './driver.mjs';
import { countArrivals, isSse, load, main, transportTo } from './driver.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { SSEClientTransport: Sse } = load('@modelcontextprotocol/sdk/client/sse.js');
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/sdk/client/stdio.js');
const { StreamableHTTPClientTransport: Http } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');
const types = load('@modelcontextprotocol/sdk/types.js');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, undefined, options);
  }

  async loggedCall(name, args, level) {
    if (this.getServerCapabilities().logging) await this.setLoggingLevel(level);
    return this.callTool(name, args);
  }

  async watch(uri) {
    if (uri) await this.subscribeResource({ uri });
    return async () => uri && this.unsubscribeResource({ uri });
  }

  listenWith(ears) {
    this.setRequestHandler(types.ElicitRequestSchema, (request) => ears.elicit(request));
    this.setRequestHandler(types.CreateMessageRequestSchema, () => ears.sample());
    this.setRequestHandler(types.ListRootsRequestSchema, () => ears.roots());
    const note = (schema, method, words) =>
      this.setNotificationHandler(schema, ({ params }) => ears.note(method, words(params)));
    note(types.LoggingMessageNotificationSchema, LOGGED, (params) => JSON.stringify(params.data));
    note(types.ToolListChangedNotificationSchema, CHANGED_TOOLS, () => '');
    note(types.ResourceUpdatedNotificationSchema, UPDATED, (params) => params.uri);
  }
}

await main(async (target, mode, ears) => {
  const client = new PeerClient({ name: 'typescript-1', version: '1.0.0' }, { capabilities: CAPABILITIES });
  client.listenWith(ears);
  await client.connect(transportTo(target, { Http, Sse, Stdio }));
  if (target.command || isSse(target)) countArrivals(client);
  return client;
});
