// The TypeScript client 2.x; mode `auto` probes for 2026-07-28, mode `legacy` does not.
import { countArrivals, isSse, load, main, transportTo } from './driver.mjs';

const { Client, ...transports } = load('@modelcontextprotocol/client');
const { SSEClientTransport: Sse, StreamableHTTPClientTransport: Http } = transports;
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/client/stdio');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, options);
  }
}

await main(async (target, mode) => {
  const client = new PeerClient({ name: 'typescript-2', version: '1.0.0' }, { versionNegotiation: { mode } });
  await client.connect(transportTo(target, { Http, Sse, Stdio }));
  if (isSse(target)) countArrivals(client);
  return client;
});
