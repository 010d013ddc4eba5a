// The TypeScript client 2.x; mode `auto` probes for 2026-07-28, mode `legacy` does not.
import { countArrivals, isSse, load, main } from './driver.mjs';

const { Client, SSEClientTransport, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, options);
  }
}

await main(async (url, mode) => {
  const client = new PeerClient({ name: 'typescript-2', version: '1.0.0' }, { versionNegotiation: { mode } });
  const Transport = isSse(url) ? SSEClientTransport : StreamableHTTPClientTransport;
  await client.connect(new Transport(new URL(url)));
  if (isSse(url)) countArrivals(client);
  return client;
});
