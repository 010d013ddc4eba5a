// The TypeScript client 2.x; mode `auto` probes for 2026-07-28, mode `legacy` does not.
import { CAPABILITIES, CHANGED_TOOLS, LOGGED, UPDATED } from './driver.mjs';
import { countArrivals, isSse, load, main, transportTo } from './driver.mjs';

const { Client, LOG_LEVEL_META_KEY, ...transports } = load('@modelcontextprotocol/client');
const { SSEClientTransport: Sse, StreamableHTTPClientTransport: Http } = transports;
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/client/stdio');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, options);
  }

  async loggedCall(name, args, level) {
    if (this.getProtocolEra() === 'modern') {
      return super.callTool({ name, arguments: args, _meta: { [LOG_LEVEL_META_KEY]: level } });
    }
    if (this.getServerCapabilities().logging) await this.setLoggingLevel(level);
    return this.callTool(name, args);
  }

  async watch(uri) {
    if (this.getProtocolEra() === 'modern') {
      const subscription = await this.listen(uri ? { resourceSubscriptions: [uri] } : { toolsListChanged: true });
      return () => subscription.close();
    }
    if (uri) await this.subscribeResource({ uri });
    return async () => uri && this.unsubscribeResource({ uri });
  }

  listenWith(ears) {
    this.setRequestHandler('elicitation/create', (request) => ears.elicit(request));
    this.setRequestHandler('sampling/createMessage', () => ears.sample());
    this.setRequestHandler('roots/list', () => ears.roots());
    const note = (method, words) =>
      this.setNotificationHandler(method, ({ params }) => ears.note(method, words(params)));
    note(LOGGED, (params) => JSON.stringify(params.data));
    note(CHANGED_TOOLS, () => '');
    note(UPDATED, (params) => params.uri);
  }
}

await main(async (target, mode, ears) => {
  const options = { versionNegotiation: { mode }, capabilities: CAPABILITIES };
  const client = new PeerClient({ name: 'typescript-2', version: '1.0.0' }, options);
  client.listenWith(ears);
  await client.connect(transportTo(target, { Http, Sse, Stdio }));
  if (target.command || isSse(target)) countArrivals(client);
  return client;
});
