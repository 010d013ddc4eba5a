// The client of the TypeScript SDK 1.x, which knows legacy revisions alone.
import { countArrivals, isSse, load, main } from './driver.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { SSEClientTransport } = load('@modelcontextprotocol/sdk/client/sse.js');
const { StreamableHTTPClientTransport } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, undefined, options);
  }
}

await main(async (url) => {
  const client = new PeerClient({ name: 'typescript-1', version: '1.0.0' });
  const Transport = isSse(url) ? SSEClientTransport : StreamableHTTPClientTransport;
  await client.connect(new Transport(new URL(url)));
  if (isSse(url)) countArrivals(client);
  return client;
});
